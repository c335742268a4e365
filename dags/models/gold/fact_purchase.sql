-- Grain: one purchase, that is one event (source, event_id) of silver.purchase.
{{ config(unique_key=['source', 'event_id'], properties={'partitioning': "ARRAY['month(purchased_at)']"}) }}

select
    p.id as event_id,
    p.source,
    {{ customer_key('p.source', 'p.subject') }} as customer_key,
    p.subject as customer_id,
    p.time as purchased_at,
    cast(p.time as date) as purchased_on,
    p.order_id,
    p.session_id,
    p.quantity,
    cast(p.amount_usd as decimal(12, 2)) as amount_usd,
    try_cast(json_extract_scalar(p.enrichment, '$.repurchase.score') as double) as repurchase_score,
    p.received_at,
    p.loaded_at
from {{ source('silver', 'purchase') }} as p
{% if is_incremental() %}
-- Rows of silver never change: what is here already need not be looked at again.
where not exists (select 1 from {{ this }} as t where t.source = p.source and t.event_id = p.id)
{% endif %}
