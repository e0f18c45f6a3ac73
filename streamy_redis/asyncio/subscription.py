"""The events of one stream, read inside this process."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

import anyio

from ..config import StreamConfig
from ..connections import explained
from ..core.event import ReceivedEvent
from ..core.incoming import Incoming
from ..core.publication import Position
from ..core.replay import Replay
from .listener import Listener
from .stream import Stream

__all__ = ["AsyncSubscription"]


class AsyncSubscription:
    """The events of one stream, read inside this process; what ``subscribe`` returns.

    Use it as an async context manager, so that it is closed, and iterate. Entering waits until
    Redis has said where the stream stands: whatever is sent later is received. Iterating without
    ``async with`` enters by itself. A slow reader and lost connections are bridged from the
    history; what it can't show comes as an event of kind ``"reset"``. Iteration stops after the
    event of kind ``"end"``, or when it is closed itself. For one task.

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

    async def __aenter__(self) -> AsyncSubscription:
        if self._stream is None and not self._incoming.is_finished:
            await self._open()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncSubscription:
        return self

    async def __anext__(self) -> ReceivedEvent:
        await self.__aenter__()
        events = self._incoming.events
        # Cancelled while it waits, take() has taken nothing.
        with anyio.move_on_after(self._timeout):
            while not events:
                await self._receive()
        if not events:
            assert self._timeout is not None
            raise self._incoming.nothing_within(self._timeout)
        return events.popleft()

    async def aclose(self) -> None:
        """Stops receiving. Repeating it is harmless."""
        self._incoming.close()
        self._leave()

    def _leave(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def __del__(self) -> None:
        # Nobody need close one that is given up.
        if self._stream is not None:
            self._stream.forget()

    async def _open(self) -> None:
        stream = self._new_stream()
        try:
            if not await stream.is_open_within(self._config.send_timeout):
                trouble = stream.trouble
                raise self._incoming.unavailable(explained(trouble)) from trouble
        except BaseException:
            stream.close()
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
            stream.add()
        except BaseException:
            stream.close()
            raise
        return stream

    async def _receive(self) -> None:
        if self._stream is None:
            raise self._incoming.cut() if self._incoming.is_cut else StopAsyncIteration
        if not self._incoming.receive(await self._stream.take()):
            self._stream = self._new_stream()
        elif self._incoming.is_finished:
            self._leave()
