-- Grain: one week (UTC, from Monday) of one variant of one version of a model: the events that happened then, as they were scored.
{{ config(unique_key=['model', 'model_version', 'variant', 'week']) }}
{% set predictions = of_changed(ref('prediction_truth'), 'model', new_rows(ref('prediction_truth'))) %}
{% set by_week = '(select *, cast(date_trunc(\'week\', predicted_at) as date) as week from ' ~ predictions ~ ')' %}

{{ measures(by_week, ['model', 'model_version', 'variant', 'week']) }}
