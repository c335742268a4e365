-- Grain: one thing that somebody did, that is one event (source, event_id) of the types in the variable `activities`. What sessions are made of.
{{ config(
    unique_key=['source', 'event_id', 'occurred_at'],
    meta={'never_changes': true},
    properties={'partitioning': "ARRAY['month(occurred_at)']", 'sorted_by': "ARRAY['occurred_at']"}
) }}

{% for type in var('activities') %}
select
    id as event_id,
    source,
    '{{ type }}' as type,
    {{ visitor_key('source', 'session_id', 'subject') }} as visitor_key,
    subject as customer_id,
    session_id,
    time as occurred_at,
    {{ 'path' if type == 'page_view' else 'cast(null as varchar)' }} as path,
    {{ 'referrer' if type == 'page_view' else 'cast(null as varchar)' }} as referrer,
    cast({{ 'amount_usd' if type == 'purchase' else 'null' }} as decimal(12, 2)) as amount_usd
from {{ new_rows(source('silver', type)) }}
where coalesce(session_id, subject) is not null
{{ 'union all' if not loop.last }}
{% endfor %}
