"""The embedded default: how each real server is fetched, configured and started as a local process."""
