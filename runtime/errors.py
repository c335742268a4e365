"""The one exception that a person is meant to read."""


class RuntimeFailure(Exception):
    """Starting or stopping cannot go on. The message is one sentence (and at most a log's last lines): what, where, and what to do."""
