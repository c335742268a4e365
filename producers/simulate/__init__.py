"""Seeded visits of a shop, for load tests and for trying things out."""
