-- Grain: one customer on one day (UTC) on which they bought. The totals are as of the end of that day, and stay so until next_purchase_on.
{{ config(
    unique_key=['customer_key', 'purchased_on'],
    properties={'partitioning': "ARRAY['month(purchased_on)']"}
) }}
{% set gained = new_rows(ref('fact_purchase')) %}

with days as (
    select
        source,
        customer_id,
        customer_key,
        purchased_on,
        min(purchased_at) as first_purchase_at,
        max(purchased_at) as last_purchase_at,
        count(*) as purchases,
        sum(quantity) as quantity,
        cast(sum(amount_usd) as decimal(18, 2)) as amount_usd,
        max(loaded_at) as loaded_at
    from {{ of_changed(ref('fact_purchase'), 'customer_key', gained) }}
    group by source, customer_id, customer_key, purchased_on
)

select
    source,
    customer_id,
    customer_key,
    purchased_on,
    lead(purchased_on) over (partition by customer_key order by purchased_on) as next_purchase_on,
    count(*) over so_far as day_number,
    purchases,
    quantity,
    amount_usd,
    min(purchased_on) over so_far as first_purchase_on,
    sum(purchases) over so_far as frequency,
    sum(quantity) over so_far as quantity_total,
    cast(sum(amount_usd) over so_far as decimal(18, 2)) as monetary_total_usd,
    first_purchase_at,
    last_purchase_at,
    loaded_at
from days
window so_far as (partition by customer_key order by purchased_on rows unbounded preceding)
