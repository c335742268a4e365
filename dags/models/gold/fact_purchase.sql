-- Grain: one purchase, that is one event (source, event_id) of silver.purchase.
{{ config(
    unique_key=['source', 'event_id', 'purchased_at'],
    meta={'never_changes': true},
    properties={'partitioning': "ARRAY['month(purchased_at)']"}
) }}

select
    id as event_id,
    source,
    {{ customer_key('source', 'subject') }} as customer_key,
    subject as customer_id,
    time as purchased_at,
    cast(time as date) as purchased_on,
    order_id,
    session_id,
    quantity,
    cast(amount_usd as decimal(12, 2)) as amount_usd,
    try_cast(json_extract_scalar(enrichment, '$.repurchase.score') as double) as repurchase_score,
    received_at,
    loaded_at
from {{ new_rows(source('silver', 'purchase')) }}
