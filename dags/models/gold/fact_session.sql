-- Grain: one session, that is what one visitor did until 30 minutes of silence. Only sessions that a new event touches are made again.
{{ config(
    unique_key=['session_key', 'started_at'],
    meta={'gone_when': 'events is null'},
    properties={'partitioning': "ARRAY['month(started_at)']"}
) }}
{% set gained = new_rows(ref('fact_activity')) %}

with activities as (
    {% if is_incremental() %}
    select distinct a.*
    from {{ ref('fact_activity') }} as a
    inner join (
        select visitor_key, started_at as earliest, ended_at as latest from ({{ sessions_touched(gained) }})
        union all
        select visitor_key, occurred_at, occurred_at from {{ gained }}
    ) as w on a.visitor_key = w.visitor_key and a.occurred_at >= w.earliest and a.occurred_at <= w.latest
    {% else %}
    select * from {{ gained }}
    {% endif %}
),

beginnings as (
    select
        *,
        coalesce(occurred_at >= lag(occurred_at) over (partition by visitor_key order by occurred_at, event_id) + interval '30' minute, true)
            as begins
    from activities
),

numbered as (
    select
        *,
        count_if(begins) over (partition by visitor_key order by occurred_at, event_id rows unbounded preceding) as session_number
    from beginnings
),

sessions as (
    select
        {{ hash(['visitor_key', 'to_iso8601(min(occurred_at))']) }} as session_key,
        min(source) as source,
        visitor_key,
        min(session_id) as session_id,
        max_by(customer_id, (occurred_at, event_id)) filter (where customer_id is not null) as customer_id,
        min(occurred_at) as started_at,
        max(occurred_at) as ended_at,
        count(*) as events,
        count_if(type in ('page_view', 'screen_view')) as views,
        count_if(type = 'button_click') as button_clicks,
        count_if(type = 'add_to_cart') as add_to_carts,
        count_if(type = 'login') as logins,
        count_if(type = 'purchase') as purchases,
        cast(coalesce(sum(amount_usd), 0) as decimal(18, 2)) as amount_usd,
        min_by(path, (occurred_at, event_id)) filter (where type = 'page_view') as landing_path,
        min_by(referrer, (occurred_at, event_id)) filter (where type = 'page_view') as referrer
    from numbered
    group by visitor_key, session_number
)

select
    {% if is_incremental() %}
    coalesce(s.session_key, t.session_key) as session_key,
    coalesce(s.started_at, t.started_at) as started_at,
    {% else %}
    s.session_key,
    s.started_at,
    {% endif %}
    s.ended_at,
    cast(s.started_at as date) as started_on,
    cast(round(to_unixtime(s.ended_at) - to_unixtime(s.started_at)) as bigint) as duration_seconds,
    s.source,
    s.visitor_key,
    s.session_id,
    s.customer_id,
    s.events,
    s.views,
    s.button_clicks,
    s.add_to_carts,
    s.logins,
    s.purchases,
    s.amount_usd,
    s.landing_path,
    s.referrer
from sessions as s
{% if is_incremental() %}
full outer join ({{ sessions_touched(gained) }}) as t on s.session_key = t.session_key
{% endif %}
