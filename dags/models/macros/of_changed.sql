{# The rows of `relation` whose `column` is that of a new row of `gained`, what new_rows gave: all rows at the first build. #}
{% macro of_changed(relation, column, gained) -%}
    (
        select * from {{ relation }}
        where {{ column }} in (select {{ column }} from {{ gained }})
    )
{%- endmacro %}

{# Whether new_rows gave no rows for any of `gained`: for a model that would look for what else changes with them in whole tables. #}
{% macro nothing_new(gained) -%}
    {%- set found = namespace(any=false) -%}
    {%- for each in gained if not each.endswith('where false)') -%}{%- set found.any = true -%}{%- endfor -%}
    {{ return(not found.any) }}
{%- endmacro %}
