"""`headrace privacy`."""
