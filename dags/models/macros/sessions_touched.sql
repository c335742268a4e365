{# The sessions of fact_session, as it is, that an event of `gained` (new rows of fact_activity) falls into or less than 30 minutes beside. #}
{% macro sessions_touched(gained) -%}
    select distinct was.session_key, was.visitor_key, was.started_at, was.ended_at
    from {{ this }} as was
    inner join {{ gained }} as n
        on was.visitor_key = n.visitor_key
        and was.started_at < n.occurred_at + interval '30' minute
        and was.ended_at > n.occurred_at - interval '30' minute
{%- endmacro %}
