"""Batch: what waits and goes to Redis together, in one round trip."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable
from typing import Protocol, TypeVar

__all__ = ["move_batch", "move_newest"]


class Sized(Protocol):
    size: int  # bytes


Item = TypeVar("Item")
SizedItem = TypeVar("SizedItem", bound=Sized)


def move_batch(
    waiting: deque[SizedItem], batch: list[SizedItem], *, most: int, most_bytes: int
) -> None:
    """Moves the oldest of waiting into an empty batch: as many as fit, and one at least."""
    total = 0
    while len(batch) < most:
        try:
            if batch and total + waiting[0].size > most_bytes:
                return
            _move(waiting.popleft, batch)
        except IndexError:
            return
        total += batch[-1].size


def move_newest(rest: deque[Item], held: list[Item]) -> None:
    """Moves the newest of rest into held, if there is one."""
    try:
        _move(rest.pop, held)
    except IndexError:
        return


def _move(pop: Callable[[], Item], into: list[Item]) -> None:
    # One call of C. An exception that is thrown into a thread comes between two instructions of
    # Python; after `item = pop()` it would leave the item in neither of the two.
    into.extend(itertools.islice(iter(pop, None), 1))
