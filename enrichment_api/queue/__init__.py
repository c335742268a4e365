"""Scoring through Kafka: requests in one topic, replies in that of each requester."""
