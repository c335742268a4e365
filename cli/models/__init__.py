"""`headrace models`."""
