"""Free TCP ports."""

from __future__ import annotations

import socket

__all__ = ["free_port"]

_given: set[int] = set()


def free_port() -> int:
    """A port of the loopback interface on which nobody listens, never the same twice."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port not in _given:
            _given.add(port)
            return port
