"""The tally: the figures of a manager's listeners, and those who follow them."""

from __future__ import annotations

import dataclasses
import functools
import logging
import operator
import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from .core.stats import StreamStats

__all__ = ["Follower", "Tally"]

_log = logging.getLogger("streamy_redis.tally")

Stats = Callable[[], StreamStats]


class Follower(Protocol):
    """Somebody who shows the figures elsewhere.

    Called by any thread, which must not wait. What it raises is logged once, and it is called on.
    """

    def update(self) -> None:
        """The figures may have changed: a few times a second while there is a listener."""

    def written(self, delay: float) -> None:
        """An event was written, so many seconds after it was sent. Only some events say when.

        To all that had no backlog: the others take it when they have taken what came before.
        """


class Tally:
    """All figures of a manager in this process. Thread-safe; a fork begins anew."""

    def __init__(self) -> None:
        self._followers: list[Follower] = []
        # Those that have raised.
        self._failing: set[Follower] = set()
        # By process id.
        self._figures: dict[int, _Figures] = {}

    @property
    def _own(self) -> _Figures:
        pid = os.getpid()
        figures = self._figures.get(pid)
        if figures is None:
            for inherited in [each for each in list(self._figures) if each != pid]:
                self._figures.pop(inherited, None)
            figures = self._figures.setdefault(pid, _Figures())
        return figures

    def stats(self) -> StreamStats:
        """The sum of all."""
        return self._own.stats()

    def add(self, stats: Stats) -> None:
        """A listener counts. Repeating it changes nothing."""
        self._own.add(stats)

    def settle(self, stats: Stats) -> None:
        """A listener is closed: what it counted stays. Repeating it changes nothing."""
        self._own.settle(stats)
        self.update()

    def follow(self, follower: Follower) -> None:
        self._followers.append(follower)

    def update(self) -> None:
        for follower in self._followers:
            try:
                follower.update()
            except Exception:
                self._log_failure(follower)

    def written(self, sent: Sequence[float]) -> None:
        """Events were written now that were sent at these times of time.monotonic()."""
        now = time.monotonic()
        for follower in self._followers:
            try:
                for at in sent:
                    # Two clocks never agree quite.
                    follower.written(max(0.0, now - at))
            except Exception:
                self._log_failure(follower)

    def _log_failure(self, follower: Follower) -> None:
        # Whoever calls delivers events, or keeps time.
        if follower not in self._failing:
            self._failing.add(follower)
            _log.exception(
                "metrics could not be kept up to date; it is tried again, and not logged again"
            )


class _Figures:
    """Those of one process: what is over, and who still counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._past = StreamStats()
        self._open: dict[Stats, None] = {}

    def stats(self) -> StreamStats:
        with self._lock:
            return functools.reduce(operator.add, [stats() for stats in self._open], self._past)

    def add(self, stats: Stats) -> None:
        with self._lock:
            self._open[stats] = None

    def settle(self, stats: Stats) -> None:
        with self._lock:
            if stats in self._open:
                del self._open[stats]
                # Also of a loop that was left behind with all that was open.
                self._past += dataclasses.replace(stats(), subscribers=0, streams=0)
