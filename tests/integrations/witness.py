"""Who reads a stream's log in Redis as it grows."""

from __future__ import annotations

import threading

import redis

from tests.event_stream import events_of
from tests.exactly_once import SentLog

__all__ = ["Witness", "log_key"]


def log_key(stream_id: str, prefix: str = "board") -> str:
    return f"{prefix}:{{{stream_id}}}:log"


class Witness:
    """Reads a stream's log as it grows, with nothing of the package under test."""

    def __init__(self, store: redis.Redis, stream_id: str) -> None:
        self.log = SentLog()
        self._key = log_key(stream_id)
        self._store = store
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        last = b"0"
        while True:
            is_last_look = self._stopping.is_set()
            found = self._store.xread({self._key: last}, count=500, block=50)
            for entry_id, fields in found[0][1] if found else []:
                last = entry_id
                (event,) = events_of(fields[b"frame"])
                self.log.returned(event.last_event_id, event.data)
            if is_last_look and not found:
                return

    def stop(self) -> SentLog:
        """All there was, once nobody sends any more."""
        self._stopping.set()
        self._thread.join(10)
        assert not self._thread.is_alive()
        return self.log
