"""Batch: what waits and goes to Redis together, in one round trip."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["BatchSize", "move_batch", "move_newest", "move_result"]


class Sized(Protocol):
    size: int  # bytes


Item = TypeVar("Item")
SizedItem = TypeVar("SizedItem", bound=Sized)


class BatchSize:
    """How much goes together: half as much after what was slow, twice as much after what was fast.

    Args:
        most: questions, at best.
        most_bytes: of all of them, at best.
        slow: seconds from which on an exchange was slow.
    """

    def __init__(self, most: int, most_bytes: int, *, slow: float) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._slow = slow
        # The part of both that goes now. Threads that change it in one moment may lose a change.
        self._share = 1.0

    @property
    def most(self) -> int:
        return max(1, int(self._most * self._share))

    @property
    def most_bytes(self) -> int:
        return int(self._most_bytes * self._share)

    def note(self, seconds: float) -> None:
        """An exchange took that long."""
        if seconds > self._slow:
            self._share = max(self._share / 2, 1 / self._most)
        elif seconds < self._slow / 2:
            self._share = min(self._share * 2, 1.0)


def move_batch(
    waiting: deque[SizedItem], batch: list[SizedItem], *, most: int, most_bytes: int
) -> None:
    """Moves the oldest of waiting into an empty batch: as many as fit, and one at least."""
    total = 0
    while len(batch) < most:
        try:
            if batch and total + waiting[0].size > most_bytes:
                return
            move_result(waiting.popleft, batch)
        except IndexError:
            return
        total += batch[-1].size


def move_newest(rest: deque[Item], held: list[Item]) -> None:
    """Moves the newest of rest into held, if there is one."""
    try:
        move_result(rest.pop, held)
    except IndexError:
        return


def move_result(pop: Callable[[], Item | None], into: list[Item]) -> None:
    """Appends what pop returns, unless that is None, and is never interrupted between the two."""
    # One call of C. An exception that is thrown into a thread comes between two instructions of
    # Python; after `item = pop()` it would leave the item in neither of the two.
    into.extend(itertools.islice(iter(pop, None), 1))
