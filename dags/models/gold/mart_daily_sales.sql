-- Grain: one day (UTC) of sales of one source, that is one (source, sales_date). Days without sales have no row.
{{ config(unique_key=['source', 'sales_date']) }}
{% set gained = new_rows(ref('fact_purchase')) %}

-- A purchase changes its own day; and, where it is a customer's first and came late, the day that was the first until then.
with days as (
    select source, purchased_on as sales_date from {{ gained }}
    union
    select f.source, f.next_purchase_on
    from {{ ref('customer_features_by_day') }} as f
    inner join {{ gained }} as n on f.customer_key = n.customer_key and f.purchased_on = n.purchased_on
    where f.day_number = 1 and f.next_purchase_on is not null
)

select
    f.source,
    f.purchased_on as sales_date,
    sum(f.purchases) as purchases,
    count(*) as customers,
    count_if(f.day_number = 1) as new_customers,
    sum(f.quantity) as quantity,
    cast(sum(f.amount_usd) as decimal(18, 2)) as amount_usd,
    cast(sum(f.amount_usd) / sum(f.purchases) as decimal(12, 2)) as mean_amount_usd
from {{ ref('customer_features_by_day') }} as f
inner join days as d on f.source = d.source and f.purchased_on = d.sales_date
group by f.source, f.purchased_on
