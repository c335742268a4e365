-- Grain: one day (UTC) of sales of one source, that is one (source, sales_date). Days without sales have no row.
{{ config(unique_key=['source', 'sales_date']) }}

select
    f.source,
    f.purchased_on as sales_date,
    count(*) as purchases,
    count(distinct f.customer_id) as customers,
    count(distinct f.customer_id) filter (where cast(c.first_purchase_at as date) = f.purchased_on) as new_customers,
    sum(f.quantity) as quantity,
    cast(sum(f.amount_usd) as decimal(18, 2)) as amount_usd,
    cast(avg(f.amount_usd) as decimal(12, 2)) as mean_amount_usd
from {{ ref('fact_purchase') }} as f
inner join {{ ref('dim_customer') }} as c on f.customer_key = c.customer_key
group by f.source, f.purchased_on
{{ only_changed() }}
