{# The grain holds: `columns` together are there, and unique; and none of `complete` is null. One look at the table for all. #}
{% test one_row_for_each(model, columns, complete=[]) %}
select {{ columns | join(', ') }}, count(*) as row_count
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% for column in columns %}
    or {{ column }} is null
{% endfor %}
{% for column in complete %}
    or count({{ column }}) = 0
{% endfor %}
{% endtest %}
