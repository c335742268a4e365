{# Each version ends where the next begins, and only the last is current. #}
{% test versions_follow_each_other(model) %}
select *
from (
    select *, lead(valid_from) over (partition by customer_key order by version) as next_from from {{ model }}
)
where valid_to is distinct from next_from
    or valid_from >= coalesce(valid_to, timestamp '9999-12-31 00:00:00 UTC')
    or is_current is distinct from (valid_to is null)
{% endtest %}
