"""The link: whether a Pub/Sub connection works, when to ask it, and when to try the next one.

One for each Redis server that is listened to, over all the connections that were made to it:

    begun ──> made ──> heard … heard ──> lost ──> (pause) ──> begun
                         │  silence ──> PING ──> nothing in time ──> lost

A connection counts as working from the first thing that is heard on it, not from when it was made:
proxies and stopped servers accept as well. Only one that has lasted for STEADY_INTERVAL ends a
trouble: then the log may speak of the next loss again, and the next attempt after it is immediate.
"""

from __future__ import annotations

import math

from ..config import PING_INTERVAL, PONG_TIMEOUT, RECONNECT_INTERVAL, STEADY_INTERVAL

__all__ = ["Link"]


class Link:
    """What is known of one server's connection. All times are seconds of the shell's clock."""

    __slots__ = ("_has_told", "_heard_at", "_made_at", "_pause", "_pinged_at", "error")

    def __init__(self) -> None:
        # Why it was lost; None while it works, and before the first attempt.
        self.error: Exception | None = None
        self._made_at = math.inf
        self._heard_at = 0.0
        # While a PING waits for its answer.
        self._pinged_at: float | None = None
        # Before the next attempt.
        self._pause = 0.0
        # The loss was told, and no connection has lasted since.
        self._has_told = False

    def begun(self) -> None:
        """Another connection is tried."""
        self._made_at = math.inf

    def made(self, now: float) -> None:
        """It is connected. Whether it works is not known yet."""
        self._made_at = self._heard_at = now
        self._pinged_at = None

    def heard(self, now: float) -> bool:
        """Something came: it works. Says whether that is news, after a loss that was."""
        self._heard_at = now
        self._pinged_at = self.error = None
        if self._age(now) < STEADY_INTERVAL:
            return False
        self._pause = 0.0
        is_news, self._has_told = self._has_told, False
        return is_news

    def lost(self, error: Exception) -> bool:
        """It is lost, or could not be made. Says whether that is news."""
        self.error = error
        is_news, self._has_told = not self._has_told, True
        return is_news

    def is_silent(self, now: float) -> bool:
        """Whether it was asked, and has said nothing in time."""
        return self._pinged_at is not None and now - self._pinged_at > PONG_TIMEOUT

    def must_ping(self, now: float) -> bool:
        """Whether to ask, after a silence. True counts as asked."""
        is_due = self._pinged_at is None and now - self._heard_at > PING_INTERVAL
        if is_due:
            self._pinged_at = now
        return is_due

    def pause(self, now: float, dice: float) -> float:
        """Seconds until the next attempt: longer each time, until a connection has lasted.

        Counted from when the last one was made: one that lived for a while has had its pause.

        Args:
            dice: a random number from 0 to 1, so that processes don't come back in step.
        """
        pause = self._pause * (0.5 + dice / 2) - self._age(now)
        shortest, longest = RECONNECT_INTERVAL
        self._pause = min(max(self._pause * 2, shortest), longest)
        return max(0.0, pause)

    def _age(self, now: float) -> float:
        """Seconds since it was made; 0 if it never was."""
        return max(0.0, now - self._made_at)
