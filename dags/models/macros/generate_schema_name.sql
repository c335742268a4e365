{# The schema is called what it is called: no prefix of the target. #}
{% macro generate_schema_name(custom_schema_name, node) -%}
    {{ var('gold_schema') }}
{%- endmacro %}
