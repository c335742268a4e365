"""The enrichment API: scores events in batches, with a model trained here and the customer's state from the lake."""
