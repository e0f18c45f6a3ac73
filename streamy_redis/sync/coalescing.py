"""Coalescing: a writer whose texts go out together."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from ..config import WRITER_RETRY_INTERVAL, StreamConfig
from ..core.coalescing import DONE, Coalescer, end_block
from ..core.event import encode_end
from ..exceptions import RedisUnavailable, StreamEnded
from .flusher import Flusher
from .publisher import Publisher

__all__ = ["Writer"]

_log = logging.getLogger("streamy_redis.writer")


class Writer:
    """Writes text to one stream piece by piece, and ends it; what ``writer`` returns.

    ::

        with streams.writer("answer 7") as answer:
            for token in model.generate(prompt):
                answer.write(token)

    Texts that come within ``interval`` seconds are joined into one event, which is sent when the
    interval is over, whether or not more text comes. Leaving the block sends what waits and ends
    the stream, so that pages stop waiting, with this data:

    - ``{"reason": "done"}`` after a block that was left normally;
    - ``{"reason": "failed", "error": "ValueError"}`` after an exception, without its text, which
      may hold what pages must not see: ``close(data)`` ends with data of your own;
    - ``{"reason": "cancelled"}`` after KeyboardInterrupt, SystemExit and the like.

    The exception goes on. If Redis is away, nothing is dropped: what could not be sent stays
    first in line, is tried again under the same idempotency key (by the next write, at the end,
    and in between by itself), and is stored once. A block that can't send its rest or end its
    stream raises RedisUnavailable; where it raised already, that goes on and this is logged.
    From then on only ``close`` tries again.

    Safe to share between threads and greenlets. A forked process needs a writer of its own.
    """

    def __init__(
        self,
        publisher: Callable[[], Publisher],
        flusher: Callable[[], Flusher],
        config: StreamConfig,
        stream_id: str,
        interval: float,
    ) -> None:
        self._publisher = publisher
        self._flusher = flusher
        self._config = config
        self._stream_id = stream_id
        self._coalescer = Coalescer(
            stream_id,
            interval,
            max_size=config.max_event_size,
            retry_interval=WRITER_RETRY_INTERVAL,
        )
        # Held while sending: what is written meanwhile waits, and so keeps its order.
        self._lock = threading.Lock()
        # Whether its block was left.
        self._is_left = False
        self._pid = os.getpid()

    @property
    def is_open(self) -> bool:
        """Whether something is still to come of it in this process."""
        return not (self._is_left or self._coalescer.is_over) and self._pid == os.getpid()

    def write(self, text: str, event_name: str | None = None) -> None:
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
        self._check_process()
        size = self._coalescer.size(text, event_name)
        with self._lock:
            self._coalescer.check_open()
            if self._coalescer.must_send_before(size, event_name, time.monotonic()):
                self._send()
            self._coalescer.add(text, size, event_name, time.monotonic())
            due_at = self._coalescer.due_at
        if due_at is not None:
            self._flusher().schedule(self._flush_due, due_at)

    def flush(self) -> None:
        """Sends what waits, now.

        Raises:
            StreamEnded, RedisUnavailable: as ``write``.
        """
        self._check_process()
        with self._lock:
            self._coalescer.check_open()
            self._send()

    def close(self, data: Any = DONE) -> None:
        """Sends what waits and ends the stream with data. Leaving the block does it by itself.

        Repeating it is harmless. After RedisUnavailable it may be called again, to try again.

        Raises:
            StreamEnded: somebody has ended the stream before all text was sent.
            InvalidEvent, RedisUnavailable: as ``end_stream``.
        """
        self._check_process()
        config = self._config
        self._end(encode_end(data, max_size=config.max_event_size, to_json=config.json_encoder))

    def _end(self, block: bytes) -> None:
        with self._lock:
            if not self._coalescer.is_over:
                self._coalescer.check_open()
                self._send()
                self._publisher().end(self._stream_id, block)
                self._coalescer.ended()

    def _flush_due(self) -> float | None:
        """Sends what is due; if it can't, the next write is told. For the flusher.

        Returns:
            When to call again; None if nothing waits.
        """
        with self._lock:
            due_at = self._coalescer.due_at
            if due_at is None or self._is_left:
                return None
            if time.monotonic() >= due_at:
                self._send_in_time()
            return self._coalescer.due_at

    def _send_in_time(self) -> None:
        try:
            self._send()
        except StreamEnded:
            self._coalescer.lost()
        except RedisUnavailable as exc:
            if self._coalescer.put_off(time.monotonic()):
                _log.warning("text for %r waits: %s", self._stream_id, exc)

    def _send(self) -> None:
        """Sends the batch, if there is one. Called under the lock."""
        batch = self._coalescer.batch(self._publisher().new_key(self._stream_id))
        if batch is None:
            return
        try:
            self._publisher().send(
                self._stream_id, batch.blocks, batch.key, is_first_try=not batch.is_repeat
            )
        except StreamEnded:
            self._coalescer.refused()
            raise
        self._coalescer.sent()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RuntimeError("a writer can't be used in a forked process; make one there")

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if os.getpid() != self._pid:
            return  # the stream is the parent's to end
        try:
            self._end(end_block(exc))
        except (StreamEnded, RedisUnavailable) as trouble:
            if exc is None:
                raise
            if isinstance(trouble, RedisUnavailable):
                _log.warning("stream %r could not be ended: %s", self._stream_id, trouble)
        finally:
            self._is_left = True
