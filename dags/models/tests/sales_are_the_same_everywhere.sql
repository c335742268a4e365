-- The sum and the number of purchases are the same, to the cent, in silver and in every table of gold.
with totals as (
    select 'silver.purchase' as place, count(*) as purchases, sum(cast(amount_usd as decimal(12, 2))) as amount_usd
    from {{ source('silver', 'purchase') }}
    union all
    select 'gold.fact_purchase', count(*), sum(amount_usd) from {{ ref('fact_purchase') }}
    {% for name in ('fact_session', 'mart_daily_sales', 'mart_retention', 'customer_features_by_day') %}
    union all
    select 'gold.{{ name }}', coalesce(sum(purchases), 0), sum(amount_usd) from {{ ref(name) }}
    {% endfor %}
    union all
    select 'gold.customer_features', coalesce(sum(frequency), 0), sum(monetary_total_usd) from {{ ref('customer_features') }}
)

select t.*
from totals as t
inner join totals as silver on silver.place = 'silver.purchase'
where t.purchases <> silver.purchases or coalesce(t.amount_usd, 0) <> coalesce(silver.amount_usd, 0)
