"""Free TCP ports."""

from __future__ import annotations

import itertools
import random
import socket

__all__ = ["free_port"]

# Below the ports that systems give to outgoing connections (from 32768 on Linux, 49152 on others):
# such a connection may take what was free a moment ago.
_RANGE = range(15_000, 32_000)
# Each process of the tests begins elsewhere.
_candidates = itertools.cycle(_RANGE)
for _ in range(random.SystemRandom().randrange(len(_RANGE))):
    next(_candidates)


def free_port() -> int:
    """A port of the loopback interface on which nobody listens, never the same twice in a row."""
    return next(port for port in _candidates if _is_free(port))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
