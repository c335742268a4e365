"""`headrace dlq`: dead letters are work, not waste."""
