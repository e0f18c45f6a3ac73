"""Which core does what: the server has one for itself."""

from __future__ import annotations

import os
import resource
from collections.abc import Collection

__all__ = ["pin", "raise_file_limit", "rest_cores", "server_cores"]

_cores = sorted(os.sched_getaffinity(0))


def server_cores() -> Collection[int]:
    """The core of the server that is measured."""
    return _cores[:1]


def rest_cores() -> Collection[int]:
    """The cores of Redis, the sender, the load client and the bench itself."""
    return _cores[1:] or _cores


def pin(cores: Collection[int]) -> None:
    """Keeps this process, and what it starts, on these cores."""
    os.sched_setaffinity(0, cores)


def raise_file_limit() -> int:
    """Allows as many descriptors as the system lets us; says how many."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most
