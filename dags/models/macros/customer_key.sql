{# One column for a customer: ids of customers are unique within a source only. #}
{% macro customer_key(source, customer_id) -%}
    lower(to_hex(md5(to_utf8({{ source }} || chr(31) || {{ customer_id }}))))
{%- endmacro %}
