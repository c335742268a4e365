-- Grain: one day (UTC), from the first month of purchases to the end of the last, or of the present one.
{{ config(unique_key='date_day') }}

with bounds as (
    select
        date_trunc('month', least(coalesce(min(purchased_on), current_date), current_date)) as first_month,
        date_trunc('month', greatest(coalesce(max(purchased_on), current_date), current_date)) as last_month
    from {{ ref('fact_purchase') }}
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
{{ only_changed() }}
