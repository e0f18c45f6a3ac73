"""The server's clock: when something happened there, in the time of this process."""

from __future__ import annotations

__all__ = ["ServerClock"]

# Seconds for which a better reading is preferred to a newer one: two clocks that nobody sets
# drift apart by a few milliseconds meanwhile.
_GOOD_FOR = 60.0


class ServerClock:
    """What the pages of the log tell of the server's clock."""

    def __init__(self) -> None:
        # Seconds to add to the server's time; None before the first reading.
        self._offset: float | None = None
        # By how much that may be wrong: the answer came within this time.
        self._uncertainty = 0.0
        self._read_at = 0.0

    def read(self, clock: int, *, asked_at: float, now: float) -> None:
        """The server said clock, in microseconds, between asked_at and now."""
        uncertainty = now - asked_at
        is_better = self._offset is None or uncertainty <= self._uncertainty
        if is_better or now - self._read_at >= _GOOD_FOR:
            self._offset = (asked_at + now) / 2 - clock / 1e6
            self._uncertainty = uncertainty
            self._read_at = now

    def local(self, clock: int) -> float | None:
        """When that was by this process's clock; None before the first reading."""
        return None if self._offset is None else clock / 1e6 + self._offset
