"""Scenes that are long and idle, played side by side, each on a stage of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from .stage import Stage

__all__ = ["LongScenes"]


class LongScenes:
    """Starts them all when the first result is asked for.

    Args:
        scenes: functions that play one, by name; the longest first.
    """

    def __init__(self, scenes: Mapping[str, Callable[[Stage], None]]) -> None:
        self._scenes = dict(scenes)
        self._coming_up = threading.BoundedSemaphore(2)
        self._pool: ThreadPoolExecutor | None = None
        self._futures: dict[str, Future[None]] = {}

    def result(self, name: str) -> None:
        """Wait for one; raises what it raised."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(len(self._scenes), thread_name_prefix="long scene")
            for each, play in self._scenes.items():
                self._futures[each] = self._pool.submit(self._play, play)
        self._futures[name].result(120)

    def _play(self, play: Callable[[Stage], None]) -> None:
        # A stage takes a processor to come up.
        with self._coming_up:
            stage = Stage(is_alone=False)
        try:
            play(stage)
        finally:
            stage.close()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()
