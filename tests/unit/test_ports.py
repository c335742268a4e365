"""Ports for servers of tests: nobody else is given them between the look and the use."""

import socket
from pathlib import Path

import pytest

from verify.ports import free_port


def test_they_are_not_those_of_who_connects_and_not_the_same_again() -> None:
    first, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    ports = [free_port() for _ in range(500)]
    assert len(set(ports)) == 500
    assert max(ports) < int(first)


def test_one_that_is_taken_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        number = taken.getsockname()[1]
        monkeypatch.setattr("verify.ports._next", iter([number, other := free_port()]))
        assert free_port() == other
