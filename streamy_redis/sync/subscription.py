"""The events of one stream, read inside this process."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from ..config import StreamConfig
from ..connections import explained
from ..core.event import ReceivedEvent
from ..core.incoming import Incoming
from ..core.publication import Position
from ..core.replay import Replay
from .listener import Listener
from .stream import Stream

__all__ = ["Subscription"]


class Subscription:
    """The events of one stream, read inside this process; what ``subscribe`` returns.

    Use it as a context manager, so that it is closed, and iterate. Entering waits until Redis has
    said where the stream stands: whatever is sent later is received. Iterating without ``with``
    enters by itself. A slow reader and lost connections are bridged from the history; what it
    can't show comes as an event of kind ``"reset"``. Iteration stops after the event of kind
    ``"end"``, or when it is closed itself. For one thread.

    Raises:
        RedisUnavailable: Redis didn't answer within ``send_timeout`` of entering.
        StreamyError: the manager was closed, or the process stops, before the stream ended: what
            was received isn't all.
        TimeoutError: no event came within ``timeout``. Iterating again waits for the same one.
    """

    # None before it is entered, and when it is finished.
    _stream: Stream | None = None

    def __init__(
        self,
        listener: Callable[[], Listener],
        config: StreamConfig,
        stream_id: str,
        *,
        cursor: Position | None,
        replay: Replay,
        timeout: float | None = None,
    ) -> None:
        self._listener = listener
        self._config = config
        self._replay: Replay = replay
        self._timeout = timeout
        self._incoming = Incoming(stream_id, cursor)

    def __enter__(self) -> Subscription:
        if self._stream is None and not self._incoming.is_finished:
            self._open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __iter__(self) -> Subscription:
        return self

    def __next__(self) -> ReceivedEvent:
        self.__enter__()
        events = self._incoming.events
        until = None if self._timeout is None else time.monotonic() + self._timeout
        while not events:
            if not self._receive(until):
                assert self._timeout is not None
                raise self._incoming.nothing_within(self._timeout)
        # An exception that is thrown in comes behind a call: this way the event is still there.
        event = events[0]
        del events[0]
        return event

    def close(self) -> None:
        """Stops receiving. Repeating it is harmless."""
        self._incoming.close()
        self._leave()

    def _leave(self) -> None:
        if self._stream is not None:
            self._stream.forget()
            self._stream = None

    # Nobody need close one that is given up, and who is interrupted at its end hasn't.
    __del__ = _leave

    def _open(self) -> None:
        stream = self._new_stream()
        try:
            if not stream.is_open_within(self._config.send_timeout):
                trouble = stream.trouble
                raise self._incoming.unavailable(explained(trouble)) from trouble
        except BaseException:
            stream.forget()
            raise
        self._incoming.cursor = stream.subscriber.start
        self._stream = stream

    def _new_stream(self) -> Stream:
        stream = Stream(
            self._listener(),
            self._config,
            self._incoming.stream_id,
            cursor=self._incoming.cursor,
            replay=self._replay,
        )
        try:
            stream.add_soon()
        except BaseException:
            stream.forget()
            raise
        return stream

    def _receive(self, until: float | None) -> bool:
        """Takes what comes; False if nothing did."""
        if self._stream is None:
            raise self._incoming.cut() if self._incoming.is_cut else StopIteration
        try:
            outgoing = self._stream.take(until=until)
            if not self._incoming.receive(outgoing):
                self._stream = self._new_stream()
            elif self._incoming.is_finished:
                self._leave()
        except BaseException:
            # What it had taken may not have come: another reader begins behind what has.
            self._leave()
            raise
        return bool(outgoing.frames) or outgoing.closed is not None
