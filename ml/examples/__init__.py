"""The worked examples: what a project of its own adds, for churn (CDNOW) and for delays (nycflights13)."""
