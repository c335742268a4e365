-- Grain: one prediction, that is one row of fact_prediction, with what is known by now of what came true.
{{ config(
    unique_key=['source', 'event_id', 'model', 'predicted_at'],
    properties={'partitioning': "ARRAY['month(predicted_at)']"}
) }}
{% set predicted = new_rows(ref('fact_prediction')) %}
{% set bought = new_rows(ref('fact_purchase')) %}
{% set told = new_rows(source('silver', 'feedback')) %}

-- Until when the purchases of a source are known: the data's own time, since data are replayed. A clock that is ahead proves nothing.
with known as (
    select source, max(least(purchased_at, received_at)) as known_until
    from {{ ref('fact_purchase') }}
    group by source
),

predictions as (
    select
        *,
        if(customer_key is not null, case model
            {% for model, days in var('bought_again_within').items() %}
            when '{{ model }}' then predicted_at + interval '{{ days }}' day
            {% endfor %}
        end) as horizon_at
    from {{ ref('fact_prediction') }}
    {% if is_incremental() %}
    where {{ 'false and' if nothing_new([predicted, bought, told]) }} (source, event_id) in (
        select source, event_id from {{ predicted }}
        union all
        select source, event_id from {{ of_changed(ref('fact_prediction'), 'customer_key', bought) }}
        union all
        select coalesce(event_source, source), event_id from {{ told }}
        union all {#- whose horizon these purchases are beyond #}
        select t.source, t.event_id
        from {{ of_changed(this, 'source', bought) }} as t
        inner join known as k on t.source = k.source and t.horizon_at < k.known_until
        where not t.settled
    )
    {% else %}
    -- All of {{ predicted }}, after which came {{ bought }} or {{ told }}: remember_snapshots finds here up to where.
    {% endif %}
),

moments as (
    select customer_key, predicted_at as at, source, event_id, model, cast(null as timestamp(6) with time zone) as purchased_at
    from predictions
    where horizon_at is not null
    union all
    select customer_key, purchased_at, null, null, null, purchased_at
    from {{ of_changed(ref('fact_purchase'), 'customer_key', 'predictions') }}
),

-- A purchase at the very moment of the prediction is none that came after it (as in training).
followed as (
    select
        source,
        event_id,
        model,
        min(purchased_at) over (
            partition by customer_key order by at desc groups between unbounded preceding and 1 preceding
        ) as next_purchase_at
    from moments
),

-- Of several that speak of one prediction, the last one counts.
feedback as (
    select
        coalesce(event_source, source) as source,
        event_id,
        model,
        model_version,
        max_by(truth, (time, id)) as truth,
        max_by(coalesce(observed_at, time), (time, id)) as observed_at
    from {{ source('silver', 'feedback') }}
    where (coalesce(event_source, source), event_id) in (select source, event_id from predictions)
    group by coalesce(event_source, source), event_id, model, model_version
)

select
    p.event_id,
    p.source,
    p.customer_key,
    p.customer_id,
    p.predicted_at,
    p.model,
    p.model_version,
    p.variant,
    p.score,
    p.quantity,
    p.amount_usd,
    p.received_at,
    p.horizon_at,
    case
        when t.truth is not null then t.truth
        when f.next_purchase_at <= p.horizon_at then 1e0
        when p.horizon_at < k.known_until then 0e0
    end as truth,
    case
        when t.truth is not null then 'feedback'
        when f.next_purchase_at <= p.horizon_at or p.horizon_at < k.known_until then 'event'
    end as truth_from,
    case
        when t.truth is not null then t.observed_at
        when f.next_purchase_at <= p.horizon_at then f.next_purchase_at
        when p.horizon_at < k.known_until then p.horizon_at
    end as truth_known_at,
    if(p.horizon_at is null, t.truth is not null, coalesce(p.horizon_at < k.known_until, false)) as settled
from predictions as p
left join followed as f on p.source = f.source and p.event_id = f.event_id and p.model = f.model
left join feedback as t
    on p.source = t.source and p.event_id = t.event_id and p.model = t.model and p.model_version = t.model_version
left join known as k on p.source = k.source
