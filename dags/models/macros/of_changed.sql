{# The rows of `relation` whose `column` is that of a new row of `gained`, what new_rows gave: all rows at the first build. #}
{% macro of_changed(relation, column, gained) -%}
    (
        select * from {{ relation }}
        where {{ column }} in (select {{ column }} from {{ gained }})
    )
{%- endmacro %}
