{# The factor of an interval's standard error that gives 95 %. #}
{% macro z95() -%} 1.959963984540054e0 {%- endmacro %}

{# A chance that is never surer than this: one event would make the log loss infinite (as ml/measure.py has it). #}
{% macro unsure(score) -%} least(greatest({{ score }}, 1e-6), 1 - 1e-6) {%- endmacro %}

{#
How well the chances of each group of `predictions` (rows of prediction_truth, grouped by the columns `keys`) fit what came: a row for each group.

Only settled predictions are judged: before its horizon is over, a prediction's truth is known if it is 1 and not if it is 0. Everything
is a sum over equal scores, so that few rows are sorted for the AUC, in which ties count half.
#}
{% macro measures(predictions, keys) -%}
{%- set keys = keys | join(', ') -%}
with by_score as (
    select
        {{ keys }},
        score,
        {{ unsure('score') }} as chance,
        count(*) as predictions,
        count(truth) as with_truth,
        count_if(settled and truth = 1) as came_true,
        count_if(settled and truth = 0) as did_not,
        min(predicted_at) as first_predicted_at,
        max(predicted_at) as last_predicted_at,
        min(received_at) as first_received_at,
        max(received_at) as last_received_at
    from {{ predictions }}
    where score between 0 and 1
    group by {{ keys }}, score
),

ranked as (
    select *, sum(did_not) over (partition by {{ keys }} order by score) - did_not / 2e0 as did_not_below from by_score
),

sums as (
    select
        {{ keys }},
        min(first_predicted_at) as first_predicted_at,
        max(last_predicted_at) as last_predicted_at,
        min(first_received_at) as first_received_at,
        max(last_received_at) as last_received_at,
        sum(predictions) as predictions,
        sum(with_truth) as with_truth,
        sum(came_true + did_not) as judged,
        sum(came_true) as came_true,
        nullif(cast(sum(came_true + did_not) as double), 0) as n,
        nullif(cast(sum(came_true) as double), 0) as n1,
        nullif(cast(sum(did_not) as double), 0) as n0,
        sum(score * predictions) as scores,
        sum(score * (came_true + did_not)) as scores_judged,
        sum(came_true * -ln(chance) + did_not * -ln(1 - chance)) as loss,
        sum(came_true * power(1 - score, 2) + did_not * power(score, 2)) as squared_error,
        sum(came_true * did_not_below) as pairs_in_order
    from ranked
    group by {{ keys }}
),

shares as (
    select *, came_true / n as truth_share, scores_judged / n as mean_score_judged, pairs_in_order / (n1 * n0) as auc from sums
),

errors as (
    select
        *,
        sqrt(greatest(0e0, auc * (1 - auc)
            + (n1 - 1) * (auc / (2 - auc) - power(auc, 2))
            + (n0 - 1) * (2 * power(auc, 2) / (1 + auc) - power(auc, 2))) / (n1 * n0)) as auc_error
    from shares
)

select
    {{ keys }},
    first_predicted_at,
    last_predicted_at,
    first_received_at,
    last_received_at,
    predictions,
    with_truth,
    judged,
    came_true,
    truth_share,
    if(judged > 0, wilson_interval_lower(came_true, judged, {{ z95() }})) as truth_share_low,
    if(judged > 0, wilson_interval_upper(came_true, judged, {{ z95() }})) as truth_share_high,
    scores / predictions as mean_score,
    mean_score_judged,
    mean_score_judged - truth_share as calibration_difference,
    loss / n as log_loss,
    squared_error / n as brier,
    auc,
    auc_error,
    greatest(auc - {{ z95() }} * auc_error, 0e0) as auc_low,
    least(auc + {{ z95() }} * auc_error, 1e0) as auc_high
from errors
{%- endmacro %}
