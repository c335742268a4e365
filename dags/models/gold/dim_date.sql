-- Grain: one day (UTC), from the first month in which somebody did something to the end of the last, or of the present one.
{{ config(unique_key='date_day', meta={'never_changes': true}) }}

with days as (
    select current_date as day
    union all
    select cast(occurred_at as date) from {{ new_rows(ref('fact_activity')) }}
    union all
    select purchased_on from {{ new_rows(ref('fact_purchase')) }}
    union all
    select viewed_on from {{ new_rows(ref('fact_page_view')) }}
    {% if is_incremental() %}
    union all
    select date_day from {{ this }}
    {% endif %}
),

bounds as (
    select date_trunc('month', min(day)) as first_month, date_trunc('month', max(day)) as last_month
    from days
)

select
    date_day,
    cast(year(date_day) as integer) as year,
    cast(quarter(date_day) as integer) as quarter,
    cast(month(date_day) as integer) as month,
    date_format(date_day, '%M') as month_name,
    cast(week(date_day) as integer) as iso_week,
    cast(day(date_day) as integer) as day_of_month,
    cast(day_of_week(date_day) as integer) as day_of_week,
    date_format(date_day, '%W') as day_name,
    day_of_week(date_day) >= 6 as is_weekend
from bounds
cross join unnest(sequence(first_month, last_month, interval '1' month)) as months (month_start)
cross join unnest(sequence(month_start, last_day_of_month(month_start), interval '1' day)) as days (date_day)
{% if is_incremental() %}
where date_day not in (select date_day from {{ this }})
{% endif %}
