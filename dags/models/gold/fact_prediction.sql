-- Grain: one prediction, that is one scored event (source, event_id) and one model.
{{ config(
    unique_key=['source', 'event_id', 'model', 'predicted_at'],
    meta={'never_changes': true},
    properties={'partitioning': "ARRAY['month(predicted_at)']"}
) }}

with scored as (
    {% for type in var('scored') %}
    select
        id,
        source,
        '{{ type }}' as type,
        subject,
        time,
        {{ 'quantity' if type == 'purchase' else 'cast(null as bigint)' }} as quantity,
        {{ 'amount_usd' if type == 'purchase' else 'cast(null as double)' }} as amount_usd,
        enrichment,
        received_at,
        loaded_at
    from {{ new_rows(source('silver', type)) }}
    {{ 'union all' if not loop.last }}
    {% endfor %}
)

select
    s.id as event_id,
    s.source,
    s.type,
    {{ customer_key('s.source', 's.subject') }} as customer_key,
    s.subject as customer_id,
    s.time as predicted_at,
    coalesce(json_extract_scalar(e.said, '$.model'), e.name) as model,
    coalesce(json_extract_scalar(e.said, '$.version'), 'unknown') as model_version,
    coalesce(json_extract_scalar(e.said, '$.variant'), 'champion') as variant,
    json_extract_scalar(e.said, '$.features') as features,
    try_cast(json_extract_scalar(e.said, '$.score') as double) as score,
    s.quantity,
    cast(s.amount_usd as decimal(12, 2)) as amount_usd,
    s.received_at,
    s.loaded_at
from scored as s
cross join unnest(try(cast(json_parse(s.enrichment) as map(varchar, json)))) as e (name, said)
where is_finite(try_cast(json_extract_scalar(e.said, '$.score') as double))
