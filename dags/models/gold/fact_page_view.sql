-- Grain: one look at a page, that is one event (source, event_id) of silver.page_view.
{{ config(
    unique_key=['source', 'event_id', 'viewed_at'],
    meta={'never_changes': true},
    properties={'partitioning': "ARRAY['month(viewed_at)']"}
) }}

select
    id as event_id,
    source,
    {{ visitor_key('source', 'session_id', 'subject') }} as visitor_key,
    subject as customer_id,
    session_id,
    time as viewed_at,
    cast(time as date) as viewed_on,
    url,
    path,
    coalesce(title, name) as title,
    referrer,
    received_at,
    loaded_at
from {{ new_rows(source('silver', 'page_view')) }}
