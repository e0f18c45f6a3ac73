"""Waiting for a condition, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Deadline"]

T = TypeVar("T")


class Deadline:
    """A point in time by which something must have happened.

    >>> Deadline(5).until(lambda: server.is_up(), "the server answers")
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self._at - time.monotonic())

    def until(
        self, condition: Callable[[], T], what: object = "the condition", *, every: float = 0.01
    ) -> T:
        """Ask until the answer is true and return it; an AssertionError that says `what` if late.

        `what` may be callable: it is asked only when the deadline passed.
        """
        while True:
            last_try = self.left == 0.0
            answer = condition()
            if answer:
                return answer
            if last_try:
                described = what() if callable(what) else what
                raise AssertionError(f"not within {self.seconds} s: {described}")
            time.sleep(min(every, self.left))

    def stays(
        self,
        condition: Callable[[], object],
        what: object = "the condition",
        *,
        every: float = 0.02,
    ) -> None:
        """Ask until the deadline and fail at the first answer that isn't true.

        For "nothing more arrives": the only way to see an absence is to look for a while.
        """
        while True:
            last_try = self.left == 0.0
            assert condition(), what() if callable(what) else what
            if last_try:
                return
            time.sleep(min(every, self.left))
