-- A truth has somebody who says so and a moment since when; of what people do, it is 0 or 1, and 0 only once the horizon is over.
select *
from {{ ref('prediction_truth') }}
where (truth is null) <> (truth_from is null)
    or (truth is null) <> (truth_known_at is null)
    or (truth_from = 'event' and not (truth = 1 or (truth = 0 and settled)))
    or (truth_from = 'event' and not (truth_known_at > predicted_at and truth_known_at <= horizon_at))
    or (settled and truth is null)
