"""What batch inference says of its table of scores in the lake (`lake.gold.scores_<scenario>`), for who reads it."""

CHAMPIONS = "headrace.champions"  # a property of the table: JSON, the champions' versions by the model's name, as of the last run
