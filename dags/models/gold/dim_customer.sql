-- Grain: one customer, that is one (source, customer_id). It names nobody: e-mail and name stay in silver.identify.
{{ config(unique_key='customer_key') }}

with purchases as (
    select
        source,
        customer_id,
        min(purchased_at) as first_purchase_at,
        max(purchased_at) as last_purchase_at
    from {{ ref('fact_purchase') }}
    group by source, customer_id
),

identified as (
    select
        source,
        subject as customer_id,
        max_by(plan, (time, id)) filter (where plan is not null) as plan,
        max_by(created_at, (time, id)) filter (where created_at is not null) as registered_at
    from {{ source('silver', 'identify') }}
    where subject is not null
    group by source, subject
)

select
    {{ customer_key('source', 'customer_id') }} as customer_key,
    source,
    customer_id,
    first_purchase_at,
    last_purchase_at,
    cast(date_trunc('month', first_purchase_at) as date) as cohort_month,
    plan,
    registered_at
from purchases
full outer join identified using (source, customer_id)
{{ only_changed() }}
