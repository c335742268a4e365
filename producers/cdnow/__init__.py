"""Replays real purchases of an online CD shop (see README.md in this folder) as `purchase` events."""
