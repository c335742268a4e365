-- Grain: one version of one customer: what was known of (source, customer_id) from valid_from until valid_to. It names nobody.
{{ config(unique_key=['customer_key', 'valid_from'], meta={'gone_when': 'version is null'}) }}
{% set bought = new_rows(ref('fact_purchase')) %}
{% set identified = new_rows(source('silver', 'identify')) %}
{% set grouped = new_rows(source('silver', 'group')) %}

-- Customers of whom there is something new. Times of purchases can only move apart: those of before stand in this table.
with news as (
    select source, customer_id, purchased_at from {{ bought }}
    union all
    select source, subject, null from {{ identified }}
    union all
    select source, subject, null from {{ grouped }}
),

purchases as (
    select source, customer_id, purchased_at from news
    {% if is_incremental() %}
    union all
    select source, customer_id, purchased_at
    from {{ this }}
    cross join unnest(array[first_purchase_at, last_purchase_at]) as p (purchased_at)
    where is_current and (source, customer_id) in (select source, customer_id from news)
    {% endif %}
),

touched as (
    select source, customer_id, min(purchased_at) as first_purchase_at, max(purchased_at) as last_purchase_at
    from purchases
    where customer_id is not null
    group by source, customer_id
),

-- What customers were said to be, and when; a first purchase says only that they were there.
said as (
    select source, subject as customer_id, time, id, plan, cast(null as varchar) as group_id, created_at as registered_at
    from {{ source('silver', 'identify') }}
    where (source, subject) in (select source, customer_id from news)
    union all
    select source, subject, time, id, null, group_id, null
    from {{ source('silver', 'group') }}
    where (source, subject) in (select source, customer_id from news)
    union all
    select source, customer_id, first_purchase_at, '', null, null, null
    from touched
    where first_purchase_at is not null
),

moments as (
    select
        source,
        customer_id,
        time as valid_from,
        max_by(plan, id) filter (where plan is not null) as plan,
        max_by(group_id, id) filter (where group_id is not null) as group_id,
        max_by(registered_at, id) filter (where registered_at is not null) as registered_at
    from said
    group by source, customer_id, time
),

known as (
    select
        source,
        customer_id,
        valid_from,
        last_value(plan) ignore nulls over (until_then rows unbounded preceding) as plan,
        last_value(group_id) ignore nulls over (until_then rows unbounded preceding) as group_id,
        last_value(registered_at) ignore nulls over (until_then rows between unbounded preceding and unbounded following) as registered_at
    from moments
    window until_then as (partition by source, customer_id order by valid_from)
),

changes as (
    select
        *,
        row_number() over w = 1 or plan is distinct from lag(plan) over w or group_id is distinct from lag(group_id) over w as is_change
    from known
    window w as (partition by source, customer_id order by valid_from)
),

versions as (
    select
        {{ customer_key('source', 'customer_id') }} as customer_key,
        *,
        row_number() over w as version,
        lead(valid_from) over w as valid_to
    from changes
    where is_change
    window w as (partition by source, customer_id order by valid_from)
)

select
    {% if is_incremental() %}
    coalesce(v.customer_key, t.customer_key) as customer_key,
    coalesce(v.valid_from, t.valid_from) as valid_from,
    {% else %}
    v.customer_key,
    v.valid_from,
    {% endif %}
    v.valid_to,
    v.valid_to is null as is_current,
    v.version,
    v.source,
    v.customer_id,
    v.plan,
    v.group_id,
    v.registered_at,
    c.first_purchase_at,
    c.last_purchase_at,
    cast(date_trunc('month', c.first_purchase_at) as date) as cohort_month
from versions as v
inner join touched as c on v.source = c.source and v.customer_id = c.customer_id
{% if is_incremental() %}
full outer join (
    select customer_key, valid_from from {{ this }} where (source, customer_id) in (select source, customer_id from news)
) as t on v.customer_key = t.customer_key and v.valid_from = t.valid_from
{% endif %}
