"""How long processes take, whatever else the machine is busy with."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

__all__ = ["Stopwatch"]


class Stopwatch:
    """Seconds since it was made, without those in which these processes waited for a processor.

    On a machine that is idle, or that doesn't tell (Linux does), there is nothing to leave out.
    """

    def __init__(self, pids: Iterable[int]) -> None:
        self._pids = list(pids)
        self._before: dict[Path, float] = {}
        self._waited: dict[int, float] = dict.fromkeys(self._pids, 0.0)
        self._start = time.monotonic()
        self.look()

    def look(self) -> bool:
        """Note how long they have waited; to be called until they have done what is timed."""
        for pid in self._pids:
            for told in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    waited = int(told.read_text().split()[1]) / 1e9
                    waited -= self._before.setdefault(told, waited)
                    # Its threads wait at the same time.
                    self._waited[pid] = max(self._waited[pid], waited)
        return True

    @property
    def waited(self) -> float:
        """Seconds for a processor."""
        return sum(self._waited.values())

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start - self.waited
