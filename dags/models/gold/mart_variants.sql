-- Grain: one variant of one version of a model, that is one (model, model_version, variant), over all time.
{{ config(unique_key=['model', 'model_version', 'variant']) }}
{% set predictions = of_changed(ref('prediction_truth'), 'model', new_rows(ref('prediction_truth'))) %}

with measured as (
    {{ measures(predictions, ['model', 'model_version', 'variant']) | indent(4) }}
),

-- Both sides of each comparison: a challenger, and the champion (of whatever version) while the challenger was there. By the clock of the
-- collector: in the time of the events, a replay of old ones would be another time.
sides as (
    select
        c.model,
        c.model_version,
        c.variant,
        p.variant = 'champion' as is_champion,
        p.customer_key,
        count(*) as judged,
        sum(p.truth) as came_true,
        sum(-ln(if(p.truth = 1, {{ unsure('p.score') }}, 1 - {{ unsure('p.score') }}))) as loss
    from measured as c
    inner join {{ predictions }} as p
        on c.model = p.model
        and p.received_at between c.first_received_at and c.last_received_at
        and (p.variant = 'champion' or (c.model_version = p.model_version and c.variant = p.variant))
    where c.variant <> 'champion' and p.settled and p.truth in (0, 1) and p.score between 0 and 1
    group by c.model, c.model_version, c.variant, p.variant = 'champion', p.customer_key
),

-- Who has a variant keeps it, so customers are what is independent, and not their predictions.
residuals as (
    select
        *,
        came_true - judged * (sum(came_true) over side / sum(judged) over side) as truth_residual,
        loss - judged * (sum(loss) over side / sum(judged) over side) as loss_residual
    from sides
    window side as (partition by model, model_version, variant, is_champion)
),

means as (
    select
        model,
        model_version,
        variant,
        is_champion,
        sum(judged) as judged,
        sum(came_true) / sum(judged) as truth_share,
        sum(loss) / sum(judged) as log_loss,
        sum(power(truth_residual, 2)) / power(sum(judged), 2) * count(*) / nullif(count(*) - 1, 0) as truth_variance,
        sum(power(loss_residual, 2)) / power(sum(judged), 2) * count(*) / nullif(count(*) - 1, 0) as loss_variance
    from residuals
    group by model, model_version, variant, is_champion
),

compared as (
    select
        c.model,
        c.model_version,
        c.variant,
        m.judged as champion_judged,
        c.truth_share - m.truth_share as truth_share_difference,
        {{ z95() }} * sqrt(c.truth_variance + m.truth_variance) as truth_share_margin,
        c.log_loss - m.log_loss as log_loss_difference,
        {{ z95() }} * sqrt(c.loss_variance + m.loss_variance) as log_loss_margin
    from means as c
    inner join means as m on c.model = m.model and c.model_version = m.model_version and c.variant = m.variant
    where not c.is_champion and m.is_champion
)

select
    m.*,
    c.champion_judged,
    c.truth_share_difference,
    c.truth_share_difference - c.truth_share_margin as truth_share_difference_low,
    c.truth_share_difference + c.truth_share_margin as truth_share_difference_high,
    c.log_loss_difference,
    c.log_loss_difference - c.log_loss_margin as log_loss_difference_low,
    c.log_loss_difference + c.log_loss_margin as log_loss_difference_high
from measured as m
left join compared as c on m.model = c.model and m.model_version = c.model_version and m.variant = c.variant
