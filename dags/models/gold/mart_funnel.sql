-- Grain: one step of the funnel on one day (UTC) for one source: how many of the sessions begun on that day came to it.
{{ config(unique_key=['source', 'funnel_date', 'step_number'], meta={'gone_when': 'sessions is null'}) }}
{% set gained = new_rows(ref('fact_activity')) %}

-- A new event changes the day on which its session began, and those on which sessions began that it made one of.
with days as (
    select distinct s.source, d.funnel_date
    from {{ ref('fact_session') }} as s
    inner join {{ gained }} as n
        on s.visitor_key = n.visitor_key and s.started_at <= n.occurred_at and s.ended_at >= n.occurred_at
    cross join unnest(sequence(s.started_on, cast(s.ended_at as date))) as d (funnel_date)
),

counts as (
    select
        s.source,
        s.started_on as funnel_date,
        count_if(s.views > 0) as viewed,
        count_if(s.views > 0 and s.add_to_carts > 0) as carted,
        count_if(s.views > 0 and s.add_to_carts > 0 and s.purchases > 0) as bought
    from {{ ref('fact_session') }} as s
    inner join days as d on s.source = d.source and s.started_on = d.funnel_date
    group by s.source, s.started_on
    having count_if(s.views > 0) > 0
),

steps as (
    select
        c.source,
        c.funnel_date,
        step.step_number,
        step.step,
        step.sessions,
        c.viewed as sessions_at_first
    from counts as c
    cross join unnest(array[(1, 'view', viewed), (2, 'cart', carted), (3, 'purchase', bought)]) as step (step_number, step, sessions)
)

{% if is_incremental() %}
select
    coalesce(f.source, t.source) as source,
    coalesce(f.funnel_date, t.funnel_date) as funnel_date,
    coalesce(f.step_number, t.step_number) as step_number,
    coalesce(f.step, t.step) as step,
    f.sessions,
    f.sessions_at_first
from steps as f
full outer join (
    select t.* from {{ this }} as t inner join days as d on t.source = d.source and t.funnel_date = d.funnel_date
) as t on f.source = t.source and f.funnel_date = t.funnel_date and f.step_number = t.step_number
{% else %}
select * from steps
{% endif %}
