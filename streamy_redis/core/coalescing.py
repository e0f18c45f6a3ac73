"""Coalescing: which texts of a writer are joined into one event, when they are due, and its end."""

from __future__ import annotations

import json
from dataclasses import dataclass

from ..exceptions import StreamEnded
from .event import encode_data, encode_end, encode_event, validate_event_name, written_size

__all__ = ["DONE", "Batch", "Coalescer", "end_block"]

# The data of the end of a writer whose block was left as it should be.
DONE = {"reason": "done"}
# Events of one batch, at most. Only names that change from text to text come near it.
_MOST_EVENTS = 100


@dataclass(frozen=True, slots=True)
class Batch:
    """What one send carries.

    Attributes:
        blocks: the events, at least one.
        key: the idempotency key, the same at every try.
        is_repeat: whether an earlier try may have been carried out.
    """

    blocks: list[bytes]
    key: str
    is_repeat: bool


class Coalescer:
    """The texts that wait to be sent together, as one batch.

    Texts of one name that follow each other are joined into one event. The batch is due an
    interval after its first text. Once it has been tried it takes no more, so that every further
    try sends the same under the same key. Each try is followed by what came of it.

    Args:
        stream_id: the stream that they go to.
        interval: seconds.
        max_size: bytes of all texts together, as they are written.
        retry_interval: seconds until a batch that was put off is due again.
    """

    __slots__ = (
        "_events",
        "_has_lost",
        "_is_ended",
        "_is_failing",
        "_last",
        "_max_size",
        "_retry_interval",
        "_size",
        "_stream_id",
        "_tried",
        "due_at",
        "interval",
    )

    def __init__(
        self, stream_id: str, interval: float, *, max_size: int, retry_interval: float
    ) -> None:
        self.interval = interval
        # When to send, on the caller's clock; None while nothing waits.
        self.due_at: float | None = None
        self._stream_id = stream_id
        self._max_size = max_size
        self._retry_interval = retry_interval
        # By this writer or by anybody else.
        self._is_ended = False
        # Whether text was too late for that, and nobody has been told yet.
        self._has_lost = False
        # Whether it was put off since the last success.
        self._is_failing = False
        # Name and texts of each event, in order.
        self._events: list[tuple[str | None, list[str]]] = []
        self._size = 0
        # Name and last character of the text before, which may have been sent.
        self._last: tuple[str | None, str] = (None, "")
        # The batch, from its first try until it was sent.
        self._tried: Batch | None = None

    def check_open(self) -> None:
        """Tells the caller if the stream takes no more.

        Raises:
            StreamEnded: somebody has ended it, or this writer did.
        """
        if self._is_ended:
            self._has_lost = False
            raise StreamEnded(self._stream_id)

    @property
    def is_over(self) -> bool:
        """Whether the stream has ended, and nobody has to be told of lost text."""
        return self._is_ended and not self._has_lost

    def size(self, text: object, event_name: object) -> int:
        """The bytes that a text takes which may be added.

        Raises:
            TypeError: it is no str.
            InvalidEvent: it, or the name, breaks a rule.
        """
        if not isinstance(text, str):
            raise TypeError(
                f"a writer joins texts, so write() takes str, not {type(text).__name__}; "
                "decode bytes, and send anything else by flush() and then send_event()"
            )
        if event_name is not None:
            validate_event_name(event_name)
        content = encode_data(text, max_size=self._max_size, to_json=json.dumps)
        return written_size(content)

    def must_send_before(self, size: int, event_name: str | None, now: float) -> bool:
        """Whether the batch has to go before so many bytes of that name can be added."""
        if self.due_at is None:
            return False
        is_full = self._size + size > self._max_size or (
            len(self._events) == _MOST_EVENTS and self._events[-1][0] != event_name
        )
        return is_full or self._tried is not None or now >= self.due_at

    def add(self, text: str, size: int, event_name: str | None, now: float) -> None:
        """Adds a text; the first of a batch makes it due an interval later."""
        assert self._tried is None, "a batch that was tried takes no more"
        text = self._with_line_feeds(text, event_name)
        if not text:
            return
        if not self._events or self._events[-1][0] != event_name:
            self._events.append((event_name, []))
        self._events[-1][1].append(text)
        self._size += size
        if self.due_at is None:
            self.due_at = now + self.interval

    def _with_line_feeds(self, text: str, event_name: str | None) -> str:
        """CR LF is one line end also when it comes in two texts, the first of which may be sent."""
        if not text:
            return text
        start = 1 if self._last == (event_name, "\r") and text[0] == "\n" else 0
        self._last = (event_name, text[-1])
        return text[start:].replace("\r\n", "\n").replace("\r", "\n")

    def batch(self, new_key: str) -> Batch | None:
        """What is to be sent now, if anything: ``sent()`` is to follow when it was.

        Args:
            new_key: the idempotency key, unless the batch has one from an earlier try.
        """
        tried = self._tried
        if tried is not None:
            return Batch(tried.blocks, tried.key, is_repeat=True)
        if not self._events:
            return None
        blocks = [
            encode_event("".join(texts), name, None, max_size=self._max_size, to_json=json.dumps)
            for name, texts in self._events
        ]
        self._tried = Batch(blocks, new_key, is_repeat=False)
        return self._tried

    def sent(self) -> None:
        """The batch is stored."""
        self._is_failing = False
        self._forget()

    def refused(self) -> None:
        """The stream has ended, so the batch can never be stored.

        Not even if the id is used anew: that is another text.
        """
        self._is_ended = True
        self._forget()

    def lost(self) -> None:
        """Nobody was told that it was refused; who calls next is."""
        self._has_lost = True

    def put_off(self, now: float) -> bool:
        """The batch can't be sent now, and is due again a while later.

        Returns:
            Whether that is news: the first time since the last success.
        """
        is_news = not self._is_failing
        self._is_failing = True
        self.due_at = now + self._retry_interval
        return is_news

    def ended(self) -> None:
        """The end is stored."""
        self._is_ended = True

    def _forget(self) -> None:
        self._events = []
        self._size = 0
        self._tried = None
        self.due_at = None


def end_block(exc: BaseException | None) -> bytes:
    """The end of a writer whose block an exception left, or None did.

    What is no Exception is how threads, greenlets and tasks are told to stop: KeyboardInterrupt,
    SystemExit, GeneratorExit, GreenletExit, asyncio.CancelledError. Neither the application's
    ``max_event_size`` nor its JSON encoder may keep a stream from ending.
    """
    text = json.dumps(_end_data(exc), separators=(",", ":"))
    return encode_end(text, max_size=len(text), to_json=json.dumps)


def _end_data(exc: BaseException | None) -> dict[str, str]:
    if exc is None:
        return DONE
    if not isinstance(exc, Exception):
        return {"reason": "cancelled"}
    return {"reason": "failed", "error": type(exc).__name__}
