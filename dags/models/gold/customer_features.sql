-- Grain: one customer who has bought, that is one (source, customer_id). What the enrichment API looks up when it scores.
{{ config(unique_key=['source', 'customer_id']) }}

select
    source,
    customer_id,
    min(purchased_at) as first_purchase_at,
    max(purchased_at) as last_purchase_at,
    count(*) as frequency,
    sum(quantity) as quantity_total,
    cast(sum(amount_usd) as decimal(18, 2)) as monetary_total_usd,
    cast(sum(amount_usd) as double) / count(*) as monetary_mean_usd,
    max(loaded_at) as updated_at
from {{ ref('fact_purchase') }}
group by source, customer_id
{{ only_changed() }}
