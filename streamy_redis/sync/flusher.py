"""The flusher: sends in time what writers hold."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from ..config import READ_TIMEOUT
from .wakeup import WakeUp

__all__ = ["Flusher"]

_log = logging.getLogger("streamy_redis.writer")

# Sends what is due, and says when to be called again, if at all.
Flush = Callable[[], float | None]


class Flusher:
    """One thread for all writers of a manager; started when the first text waits."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._changed = WakeUp()
        # When to call what.
        self._due: dict[Flush, float] = {}
        self._thread: threading.Thread | None = None
        # When the thread will look by itself.
        self._looks_at = math.inf

    def schedule(self, flush: Flush, at: float) -> None:
        """Calls flush at that time, and not at the one that was said before."""
        with self._lock:
            self._due[flush] = at
            if self._thread is None:
                self._start()
            elif at < self._looks_at:
                self._changed.set()

    def close(self) -> None:
        """Ends the thread; writers send what waits with their next write, or at their end."""
        with self._lock:
            self._due.clear()
            thread, self._thread = self._thread, None
            self._changed.set()
        if thread is not None:
            thread.join(timeout=READ_TIMEOUT)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="streamy-redis-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:
            # No more threads, or the interpreter ends: as after close().
            _log.warning("text waits for the next write: %s", exc)
        else:
            self._thread = thread

    def _run(self) -> None:
        while (flush := self._next_due()) is not None:
            try:
                again_at = flush()
            except BaseException:
                # Also what would end a thread: other writers depend on it.
                _log.exception("text could not be sent in time; the next write tries again")
                continue
            if again_at is not None:
                with self._lock:
                    # Who wrote since then knows better.
                    self._due.setdefault(flush, again_at)

    def _next_due(self) -> Flush | None:
        """Waits until one is due; None when the thread is to end."""
        while True:
            with self._lock:
                self._changed.clear()
                if self._thread is not threading.current_thread():
                    return None
                flush = min(self._due, key=self._due.__getitem__, default=None)
                self._looks_at = math.inf if flush is None else self._due[flush]
                seconds = self._looks_at - time.monotonic()
                if flush is not None and seconds <= 0:
                    del self._due[flush]
                    return flush
            self._changed.wait(None if flush is None else seconds)
