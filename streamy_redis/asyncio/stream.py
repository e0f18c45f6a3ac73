"""The stream of one open response, or of one reader inside the process: it waits and takes."""

from __future__ import annotations

import asyncio
import contextlib
import time

import anyio

from ..config import OPEN_TIMEOUT, TROUBLE_INTERVAL, StreamConfig
from ..core.publication import Position
from ..core.replay import Replay
from ..core.subscriber import CloseReason, Limits, Outgoing, Pacing, Subscriber
from ..servers.connection import Connection
from .listener import Listener
from .writer import Receive, ResponseWriter, Send

__all__ = ["Stream"]


class Stream:
    """An open subscriber, and the task that waits for its frames until a response writes them."""

    writes_at_once = False
    is_chunked = False

    def __init__(
        self,
        listener: Listener,
        config: StreamConfig,
        stream_id: str,
        *,
        cursor: Position | None,
        replay: Replay,
        event_name: str | None = None,
        pacing: Pacing | None = None,
    ) -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        # Where somebody waits for wake().
        self._waiter: asyncio.Future[None] | None = None
        self.subscriber = Subscriber(
            stream_id,
            self,
            Limits.of(config),
            cursor=cursor,
            replay=replay,
            event_name=event_name,
            pacing=pacing,
            now=time.monotonic(),
        )

    def wake(self) -> None:
        """There is something to take. Called by the listener."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def write(self, data: bytes) -> bool:
        raise AssertionError("a subscriber whose frames are taken by a task never rests")

    def add(self, connection: Connection | None = None) -> bool:
        """Registers the subscriber; False if there are too many.

        Args:
            connection: of the ASGI request that it answers.
        """
        return self._listener.add(self.subscriber, connection)

    async def wait_open(self) -> None:
        """Waits a moment until the log has said where the stream begins, or that it has ended.

        No longer than OPEN_TIMEOUT, and not at all while Redis is known to be away.
        """
        if not self._listener.is_away:
            await self.is_open_within(OPEN_TIMEOUT)

    async def is_open_within(self, seconds: float) -> bool:
        """Waits; False if Redis hasn't answered by then, or never will."""
        deadline = time.monotonic() + seconds
        while not self._is_decided:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or self.lasting_trouble is not None:
                return False
            with anyio.move_on_after(min(remaining, TROUBLE_INTERVAL)):
                await self._wait()
        return True

    @property
    def _is_decided(self) -> bool:
        return self.subscriber.start is not None or self.subscriber.closed is not None

    @property
    def trouble(self) -> Exception | None:
        """Why Redis doesn't answer, as far as that is known."""
        return self.lasting_trouble or self._listener.trouble

    @property
    def lasting_trouble(self) -> Exception | None:
        """The same, where it is of no use to wait."""
        return self._listener.lasting_trouble(self.subscriber.stream_id)

    @property
    def has_nothing_to_say(self) -> bool:
        """Whether the stream had ended before the cursor: 204, which stops an EventSource."""
        return self.subscriber.closed is CloseReason.END and self.subscriber.start is None

    async def take(self) -> Outgoing:
        """Waits for frames or the end; calling it again says that the last ones were written."""
        while True:
            outgoing = self._listener.take(self.subscriber)
            if outgoing.frames or outgoing.closed is not None:
                return outgoing
            await self._wait()

    async def _wait(self) -> None:
        # Nothing can happen between a look and this: there is no await.
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def serve(self, receive: Receive, send: Send, connection: Connection) -> None:
        """Writes a response's body, until the end or until the client leaves.

        Args:
            receive, send: of the ASGI request; the head of the response is sent.
            connection: the request's.
        """
        with anyio.CancelScope() as scope:
            writer = ResponseWriter(self.subscriber, self._listener, send, connection, scope.cancel)
            self.subscriber.writer = writer
            connection.set_user_timeout(self.subscriber.user_timeout)
            try:
                self._listener.wake(self.subscriber)
                while (await receive())["type"] != "http.disconnect":
                    pass
            finally:
                writer.stop()
                closed = self.subscriber.closed
                connection.unset_user_timeout(is_kept=closed is not None and closed.is_complete)
                self.close()
                await writer.aclose()
        if writer.error is not None:
            raise writer.error

    def close(self) -> None:
        """The client has left, or has been told all. Repeating it is harmless."""
        self._listener.remove(self.subscriber)

    def forget(self) -> None:
        """As close(), but soon, and from a finalizer, too, which any thread may run."""
        # A loop that is closed reads no more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.close)
