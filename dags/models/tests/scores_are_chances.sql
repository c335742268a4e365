-- A repurchase score is a chance.
select event_id, source, repurchase_score
from {{ ref('fact_purchase') }}
where repurchase_score < 0 or repurchase_score > 1
