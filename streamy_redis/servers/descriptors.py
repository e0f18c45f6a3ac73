"""The descriptors of this process: how many it has open, and how many it may.

A connection is one, and at the limit nothing works: servers can't accept (gunicorn's worker of
threads ends), Redis isn't reached, files aren't opened. So streams have to know.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import time

try:
    import resource
except ImportError:
    # Windows, which says nothing of its limits.
    resource = None  # type: ignore[assignment]

from ..core.descriptors import Descriptors

__all__ = ["is_shortage", "raise_limit", "seen"]

# Seconds for which one list of them is good enough: it costs as much as there are.
_GLANCE = 0.1
# Its size is their number, from Linux 6.2 on; 0 before.
_SAYS_HOW_MANY = "/proc/self/fd"


def raise_limit() -> None:
    """Allows the process all that it may allow itself. Programs that it starts inherit that."""
    if resource is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # Some systems have a lower bound of their own.
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def seen() -> Descriptors | None:
    """As of now; None where there is no limit, or none that is known."""
    limit = _limit()
    return None if limit is None else Descriptors(_open(limit), limit)


def is_shortage(error: OSError) -> bool:
    """Whether it says that no descriptor is left, in this process or in all."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def _limit() -> int | None:
    if resource is None:
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return None if soft == resource.RLIM_INFINITY else soft


def _open(limit: int) -> int:
    try:
        count = os.stat(_SAYS_HOW_MANY).st_size
    except OSError:
        count = 0
    return count or max(_lowest_free(limit), _listed(int(time.monotonic() / _GLANCE)))


def _lowest_free(limit: int) -> int:
    """The number that the next one gets: so many are open at least, also since the last list."""
    try:
        number = os.open(os.devnull, os.O_RDONLY)
    except OSError as exc:
        return limit if is_shortage(exc) else 0
    os.close(number)
    return number


@functools.lru_cache(maxsize=1)
def _listed(_glance: int) -> int:
    try:
        # What lists them is one more.
        return len(os.listdir("/dev/fd")) - 1
    except OSError:
        return 0
