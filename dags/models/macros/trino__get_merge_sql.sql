{#
In place of dbt-trino's: a row that is as it was is not written again, and one that should not be there any more is deleted.
A model says so in its `meta`: `never_changes` (a row, once written, stays as it is), `gone_when` (a condition that is true for a row which
names only the key of one to delete).
#}
{% macro trino__get_merge_sql(target, source, unique_key, dest_columns, incremental_predicates) -%}
    {%- set meta = config.get('meta', {}) -%}
    {%- set keys = [unique_key] if unique_key is string else unique_key -%}
    {%- set columns = dest_columns | map(attribute='name') | list -%}
    {%- set others = columns | reject('in', keys) | list -%}
    {%- set gone = 's.' ~ meta.get('gone_when') if meta.get('gone_when') else 'false' -%}
    merge into {{ target }} as t
    using {{ source }} as s
    on {% for key in keys %}s.{{ key }} = t.{{ key }}{{ ' and ' if not loop.last }}{% endfor %}
    {% if not meta.get('never_changes') %}
    when matched and {{ gone }} then delete
    when matched and (
        {%- for column in others %}s.{{ column }} is distinct from t.{{ column }}{{ ' or ' if not loop.last }}{% endfor -%}
    ) then update set {% for column in others %}{{ column }} = s.{{ column }}{{ ', ' if not loop.last }}{% endfor %}
    {% endif %}
    when not matched and not {{ gone }} then insert ({{ columns | join(', ') }})
    values ({% for column in columns %}s.{{ column }}{{ ', ' if not loop.last }}{% endfor %})
{%- endmacro %}
