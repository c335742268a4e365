-- Shares and chances lie between 0 and 1, in their intervals (to rounding); and both marts are of the same predictions.
{% set least = '-1e-9' %}
{% for mart in ('mart_variants', 'mart_model_weeks') %}
select '{{ mart }}' as mart, model, model_version, variant
from {{ ref(mart) }}
where not (0 <= came_true and came_true <= judged and judged <= with_truth and with_truth <= predictions)
    {% for name in ('truth_share', 'auc') %}
    or {{ least }} > least({{ name }}_low, {{ name }} - {{ name }}_low, {{ name }}_high - {{ name }}, 1 - {{ name }}_high)
    {% endfor %}
    or mean_score not between 0 and 1
    or brier not between 0 and 1
    or log_loss < 0
    or (judged > 0) <> (log_loss is not null)
union all
{% endfor %}
select 'both', model, model_version, variant
from {{ ref('mart_variants') }} as v
full outer join (
    select model, model_version, variant, sum(predictions) as predictions, sum(judged) as judged
    from {{ ref('mart_model_weeks') }}
    group by model, model_version, variant
) as w using (model, model_version, variant)
where v.predictions is distinct from w.predictions or v.judged is distinct from w.judged
