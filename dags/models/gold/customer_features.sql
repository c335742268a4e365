-- Grain: one customer who has bought, that is one (source, customer_id), as of now. What the enrichment API looks up when it scores.
{{ config(unique_key=['source', 'customer_id']) }}

select
    source,
    customer_id,
    min(first_purchase_at) as first_purchase_at,
    max(last_purchase_at) as last_purchase_at,
    sum(purchases) as frequency,
    sum(quantity) as quantity_total,
    cast(sum(amount_usd) as decimal(18, 2)) as monetary_total_usd,
    cast(sum(amount_usd) as double) / sum(purchases) as monetary_mean_usd,
    max(loaded_at) as updated_at
from {{ of_changed(ref('customer_features_by_day'), 'customer_key', new_rows(ref('fact_purchase'))) }}
group by source, customer_id
