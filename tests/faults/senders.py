"""Senders that keep a record: what returned, how long it took, what it raised."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from streamy_redis import RedisUnavailable, StreamConfig, StreamManager
from tests.exactly_once import SentLog, position_of

__all__ = ["HISTORY_LENGTH", "Flood", "Sender"]

# Of all that send to a scene: as much as it will see. One who keeps less trims the others' events.
HISTORY_LENGTH = 20_000

T = TypeVar("T")


class Sender:
    """Sends one event after another at a steady rate, until stopped.

    A send that raises is repeated with its key, as the documentation tells senders to do, so that
    each event is owed exactly once. Its manager is its own, as in a process that only sends.

    Attributes:
        sent: for the checker.
        began: when the send of each payload was first called, by payload.
        took: seconds that each call took, those that raised included.
        errors: what was raised.
    """

    def __init__(
        self,
        url: str,
        prefix: str,
        stream_id: str,
        *,
        rate: float,
        name: str = "event",
        **config: Any,
    ) -> None:
        self.sent = SentLog()
        self.began: dict[str, float] = {}
        self.took: list[float] = []
        self.errors: list[RedisUnavailable] = []
        self.config = StreamConfig(prefix=prefix, **config)
        self.streams = StreamManager(url, config=self.config)
        self._stream_id = stream_id
        self._name = name
        self._interval = 1 / rate
        self._order: list[str] = []
        self._crash: BaseException | None = None
        self._stopping = threading.Event()
        # Only then does a send that keeps failing end the thread.
        self._give_up_at = math.inf
        # Held while a send is under way, and by who wants none to be.
        self._turn = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"sender {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            due = time.monotonic()
            while not self._stopping.wait(max(0.0, due - time.monotonic())):
                with self._turn:
                    data = f"{self._name} {len(self._order)}"
                    self.began[data] = time.monotonic()
                    event_id = self._send(data)
                    self._order.append(event_id)
                    self.sent.returned(event_id, data)
                due = max(due + self._interval, time.monotonic() - 0.2)
        except BaseException as error:
            self._crash = error

    def _send(self, data: str) -> str:
        key = None
        while True:
            start = time.monotonic()
            try:
                return self.streams.send_event(self._stream_id, data, idempotency_key=key)
            except RedisUnavailable as error:
                self.errors.append(error)
                if time.monotonic() > self._give_up_at:
                    self.sent.unsure(data)
                    raise
                key = error.idempotency_key
                assert key, "an error without the key to repeat with"
                # Some errors are raised at once: a sender in a tight loop would be our mistake.
                self._stopping.wait(0.05)
            finally:
                self.took.append(time.monotonic() - start)

    @property
    def is_sending(self) -> bool:
        """Whether it has not been stopped."""
        return not self._stopping.is_set()

    def hold(self) -> None:
        """Send nothing until release(); no send is under way when this returns."""
        assert self._turn.acquire(timeout=30), "a send hangs"

    def release(self) -> None:
        self._turn.release()

    def paused(self, act: Callable[[], T]) -> T:
        """Act while no send is under way."""
        self.hold()
        try:
            return act()
        finally:
            self.release()

    def stop(self) -> SentLog:
        """Stop; each call ended in time, and the ids follow the order of the calls."""
        self._give_up_at = time.monotonic() + 5
        self._stopping.set()
        self._thread.join(self.config.send_timeout * 3 + 10)
        assert not self._thread.is_alive(), "a send hangs"
        self.streams.close()
        if self._crash is not None:
            raise self._crash
        longest = max(self.took, default=0.0)
        assert longest < self.config.send_timeout + 1, f"a send took {longest:.2f} s"
        positions = [position_of(event_id) for event_id in self._order]
        assert positions == sorted(positions), "not in the caller's order"
        return self.sent


class Flood:
    """Many events a second, some in each round trip, for as long as it is wanted.

    Attributes:
        calls: how many round trips there were.
    """

    def __init__(self, send: Callable[[int], object], *, rate: int) -> None:
        self.calls = 0
        self._send = send
        self._rate = rate
        self._stopping = threading.Event()
        self._crash: BaseException | None = None

    @contextmanager
    def going_on(self) -> Iterator[None]:
        thread = threading.Thread(target=self._run, name="flood", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join(10)
        assert not thread.is_alive(), "a send hangs"
        if self._crash is not None:
            raise self._crash

    def _run(self) -> None:
        a_call = max(1, self._rate // 100)
        due = time.monotonic()
        try:
            while not self._stopping.wait(max(0.0, due - time.monotonic())):
                self._send(a_call)
                self.calls += 1
                due += a_call / self._rate
        except BaseException as error:
            self._crash = error
