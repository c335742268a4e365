-- What is known of a prediction stands beside it, and nothing stands beside none.
select p.source, p.event_id, p.model, t.event_id as with_truth
from {{ ref('fact_prediction') }} as p
full outer join {{ ref('prediction_truth') }} as t on p.source = t.source and p.event_id = t.event_id and p.model = t.model
where p.event_id is null or t.event_id is null or p.model_version <> t.model_version or p.score <> t.score
