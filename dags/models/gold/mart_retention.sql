-- Grain: one cohort (the customers of one source who first bought in one month) in one month since, months without a purchase included.
{{ config(unique_key=['source', 'cohort_month', 'activity_month'], meta={'gone_when': 'customers is null'}) }}
{% set gained = new_rows(ref('fact_purchase')) %}

-- A purchase changes its own month; and, where it is a customer's first and came late, all months of that customer, whose cohort it moves.
with months as (
    select source, date_trunc('month', purchased_on) as activity_month from {{ gained }}
    union
    select source, date_trunc('month', purchased_on)
    from {{ ref('customer_features_by_day') }}
    where customer_key in (
        select f.customer_key
        from {{ ref('customer_features_by_day') }} as f
        inner join {{ gained }} as n on f.customer_key = n.customer_key and f.purchased_on = n.purchased_on
        where f.day_number = 1 and f.next_purchase_on is not null
    )
),

cells as (
    select
        f.source,
        date_trunc('month', f.first_purchase_on) as cohort_month,
        m.activity_month,
        count(distinct f.customer_key) as customers,
        sum(f.purchases) as purchases,
        sum(f.amount_usd) as amount_usd
    from {{ ref('customer_features_by_day') }} as f
    inner join months as m
        on f.source = m.source
        and f.purchased_on >= m.activity_month
        and f.purchased_on < m.activity_month + interval '1' month
    group by f.source, date_trunc('month', f.first_purchase_on), m.activity_month
    {% if is_incremental() %}
    union all
    select t.source, t.cohort_month, t.activity_month, t.customers, t.purchases, t.amount_usd
    from {{ this }} as t
    left join months as m on t.source = m.source and t.activity_month = m.activity_month
    where m.source is null and t.customers > 0
    {% endif %}
),

cohorts as (
    select
        source,
        cohort_month,
        max(customers) filter (where activity_month = cohort_month) as cohort_size,
        max(max(activity_month)) over (partition by source) as last_month,
        map_agg(activity_month, (customers, purchases, amount_usd)) as cells
    from cells
    group by source, cohort_month
),

filled as (
    select
        c.source,
        c.cohort_month,
        m.activity_month,
        date_diff('month', c.cohort_month, m.activity_month) as month_number,
        c.cohort_size,
        coalesce(element_at(c.cells, m.activity_month)[1], 0) as customers,
        coalesce(element_at(c.cells, m.activity_month)[2], 0) as purchases,
        cast(coalesce(element_at(c.cells, m.activity_month)[3], 0) as decimal(18, 2)) as amount_usd
    from cohorts as c
    cross join unnest(sequence(c.cohort_month, c.last_month, interval '1' month)) as m (activity_month)
)

select
    {% if is_incremental() %}
    coalesce(f.source, t.source) as source,
    coalesce(f.cohort_month, t.cohort_month) as cohort_month,
    coalesce(f.activity_month, t.activity_month) as activity_month,
    {% else %}
    f.source,
    f.cohort_month,
    f.activity_month,
    {% endif %}
    f.month_number,
    f.cohort_size,
    f.customers,
    f.purchases,
    f.amount_usd,
    cast(f.customers as double) / f.cohort_size as retention
from filled as f
{% if is_incremental() %}
full outer join {{ this }} as t
    on f.source = t.source and f.cohort_month = t.cohort_month and f.activity_month = t.activity_month
{% endif %}
