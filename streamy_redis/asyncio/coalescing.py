"""Coalescing: a writer whose texts go out together."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

import anyio

from ..config import WRITER_RETRY_INTERVAL, StreamConfig
from ..core.coalescing import DONE, Coalescer, end_block
from ..core.event import encode_end
from ..exceptions import RedisUnavailable, StreamEnded
from .publisher import Publisher

__all__ = ["Writer"]

_log = logging.getLogger("streamy_redis.writer")


class Writer:
    """Writes text to one stream piece by piece, and ends it; what ``writer`` returns.

    ::

        async with streams.writer("answer 7") as answer:
            async for token in model.generate(prompt):
                await answer.write(token)

    Texts that come within ``interval`` seconds are joined into one event, which is sent when the
    interval is over, whether or not more text comes. Leaving the block sends what waits and ends
    the stream, so that pages stop waiting, with this data:

    - ``{"reason": "done"}`` after a block that was left normally;
    - ``{"reason": "failed", "error": "ValueError"}`` after an exception, without its text, which
      may hold what pages must not see: ``aclose(data)`` ends with data of your own;
    - ``{"reason": "cancelled"}`` when the task was cancelled.

    The exception goes on. If Redis is away, nothing is dropped: what could not be sent stays
    first in line, is tried again under the same idempotency key (by the next write, at the end,
    and in between by itself), and is stored once. A block that can't send its rest or end its
    stream raises RedisUnavailable; where it raised already, that goes on and this is logged.
    From then on only ``aclose`` tries again.

    What a cancelled block has to send takes no longer than three sends may; a second
    ``Task.cancel()`` meanwhile cuts it off. Safe to share between the tasks of one event loop.
    """

    def __init__(
        self,
        publisher: Callable[[], Publisher],
        config: StreamConfig,
        stream_id: str,
        interval: float,
    ) -> None:
        self._new_publisher = publisher
        # From the first use to the end, since the manager may be closed before.
        self._publisher: Publisher | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._config = config
        self._stream_id = stream_id
        self._coalescer = Coalescer(
            stream_id,
            interval,
            max_size=config.max_event_size,
            retry_interval=WRITER_RETRY_INTERVAL,
        )
        # Held while sending: what is written meanwhile waits, and so keeps its order.
        self._lock = asyncio.Lock()
        # Sends in time; there is one while something waits.
        self._flusher: asyncio.Task[None] | None = None

    async def write(self, text: str, event_name: str | None = None) -> None:
        """Takes a piece of text, which is sent within ``interval`` seconds.

        When this raises, it hasn't taken the text: the same call may be repeated. It waits for
        Redis only if text that came earlier has to be sent first: because it is due, or because
        both together would exceed ``max_event_size``.

        Args:
            text: any str; an empty one is nothing. Line ends become LF, as in every event.
            event_name: the browser's event type. Texts are joined with those of the same name
                next to them.

        Raises:
            TypeError: text is no str. Only text can be joined; ``flush()`` and then
                ``send_event`` send anything else in its place.
            InvalidEvent: text is larger than ``max_event_size``, or breaks another rule.
            StreamEnded: somebody has ended the stream, for example to cancel this writer.
            RedisUnavailable: earlier text can't be sent; it is kept.
        """
        publisher = self._held_publisher()
        size = self._coalescer.size(text, event_name)
        async with self._lock:
            self._coalescer.check_open()
            if self._coalescer.must_send_before(size, event_name, time.monotonic()):
                await self._send(publisher)
            self._coalescer.add(text, size, event_name, time.monotonic())
            if self._coalescer.due_at is not None:
                self._start_flusher()

    async def flush(self) -> None:
        """Sends what waits, now.

        Raises:
            StreamEnded, RedisUnavailable: as ``write``.
        """
        publisher = self._held_publisher()
        async with self._lock:
            self._coalescer.check_open()
            await self._send(publisher)

    async def aclose(self, data: Any = DONE) -> None:
        """Sends what waits and ends the stream with data. Leaving the block does it by itself.

        Repeating it is harmless. After RedisUnavailable it may be called again, to try again.

        Raises:
            StreamEnded: somebody has ended the stream before all text was sent.
            InvalidEvent, RedisUnavailable: as ``end_stream``.
        """
        config = self._config
        await self._end(
            encode_end(data, max_size=config.max_event_size, to_json=config.json_encoder)
        )

    async def _end(self, block: bytes) -> None:
        publisher = self._held_publisher()
        async with self._lock:
            if not self._coalescer.is_over:
                self._coalescer.check_open()
                await self._send(publisher)
                await publisher.end(self._stream_id, block)
                self._coalescer.ended()
        await self._stop_flusher()

    def _start_flusher(self) -> None:
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.get_running_loop().create_task(
                self._flush_in_time(),
                name="streamy-redis-writer",
                context=contextvars.Context(),
            )

    async def _stop_flusher(self) -> None:
        if self._flusher is not None and not self._flusher.done():
            self._flusher.cancel()
            await asyncio.wait([self._flusher])

    async def _flush_in_time(self) -> None:
        """Sends what is due, until nothing waits; if it can't, the next write is told."""
        while (due_at := self._coalescer.due_at) is not None:
            seconds = due_at - time.monotonic()
            if seconds > 0:
                # Who writes while a failure is put off may be due sooner.
                await anyio.sleep(min(seconds, self._coalescer.interval))
            else:
                await self._flush_due()

    async def _flush_due(self) -> None:
        async with self._lock:
            due_at = self._coalescer.due_at
            if due_at is not None and time.monotonic() >= due_at:
                await self._send_in_time()

    async def _send_in_time(self) -> None:
        try:
            await self._send(self._held_publisher())
        except StreamEnded:
            self._coalescer.lost()
        except RedisUnavailable as exc:
            if self._coalescer.put_off(time.monotonic()):
                _log.warning("text for %r waits: %s", self._stream_id, exc)

    async def _send(self, publisher: Publisher) -> None:
        """Sends the batch, if there is one. Called under the lock."""
        batch = self._coalescer.batch(publisher.new_key(self._stream_id))
        if batch is None:
            return
        try:
            await publisher.send(
                self._stream_id, batch.blocks, batch.key, is_first_try=not batch.is_repeat
            )
        except StreamEnded:
            self._coalescer.refused()
            raise
        self._coalescer.sent()

    def _held_publisher(self) -> Publisher:
        running = asyncio.get_running_loop()
        if self._publisher is None:
            self._loop, self._publisher = running, self._new_publisher()
        if self._loop is not running:
            raise RuntimeError("a writer can't be used in another event loop; make one there")
        return self._publisher

    async def __aenter__(self) -> Writer:
        # While the manager is open; the end may come when the event loop is about to close.
        self._held_publisher()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await self._end(end_block(exc))
            except (StreamEnded, RedisUnavailable) as trouble:
                if exc is None:
                    raise
                if isinstance(trouble, RedisUnavailable):
                    _log.warning("stream %r could not be ended: %s", self._stream_id, trouble)
            finally:
                await self._stop_flusher()
