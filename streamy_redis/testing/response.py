"""A response as it comes in: what a test has seen of it, and what it says of that."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from http import HTTPStatus
from wsgiref.headers import Headers

from ..core.event import END, OPEN
from .parser import EventStreamParser, StreamEvent

__all__ = ["MissingEvents", "Response"]

# Characters of one event's data, and of the body of an answer that is no stream, in an error.
_SHOWN = 300


class MissingEvents(AssertionError):
    """Raised when the events that a test waits for don't come in time, or can't come any more.

    Attributes:
        events: what came instead, and nobody has collected.
    """

    def __init__(self, message: str, events: Sequence[StreamEvent]) -> None:
        super().__init__(message)
        self.events = list(events)


class Response:
    """What has come of one response, and what of the ones before was not collected.

    Pure: its connection tells it, a test asks it, and who does so from two threads has a lock.

    Args:
        request: what was asked for, in words.
        last_event_id: that the request carried.
        uncollected: events of the response before.

    Attributes:
        status: None until the head has come.
        headers: case doesn't matter in their names.
        body: of an answer that is no stream.
        is_open: whether ``stream-open`` has come.
        is_over: whether nothing more can come.
        is_complete: whether it ended as one that is complete, rather than being cut.
        error: what the app raised.
    """

    def __init__(
        self,
        request: str,
        last_event_id: str = "",
        uncollected: Sequence[StreamEvent] = (),
    ) -> None:
        self.status: int | None = None
        self.headers = Headers([])
        self.body = b""
        self.is_open = False
        self.is_over = False
        self.is_complete = False
        self.error: BaseException | None = None
        self._request = request
        self._parser = EventStreamParser(last_event_id)
        self._events = deque(uncollected)
        # Whether the test knows of the error.
        self._is_told = False

    def next_one(self) -> Response:
        """What a client gets that comes back with its cursor."""
        return Response(self._request, self.last_event_id, list(self._events))

    @property
    def last_event_id(self) -> str:
        return self._parser.last_event_id

    @property
    def uncollected(self) -> int:
        """How many events have come that nobody has collected."""
        return len(self._events)

    @property
    def is_stream(self) -> bool:
        """Whether an EventSource would read it: it gives up on anything else."""
        kind = (self.headers["Content-Type"] or "").partition(";")[0].strip().lower()
        return self.status == HTTPStatus.OK and kind == "text/event-stream"

    # What the connection tells

    def receive_head(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self.status = status
        self.headers = Headers(list(headers))

    def receive_body(self, chunk: bytes) -> None:
        if not self.is_stream:
            self.body += chunk
            return
        for event in self._parser.feed(chunk):
            if event.name == OPEN:
                self.is_open = True
            else:
                self._events.append(event)

    def complete(self) -> None:
        """That was all of it."""
        self.is_complete = True

    def finish(self, error: BaseException | None = None) -> None:
        """Nothing more comes. Only the first call counts."""
        if not self.is_over:
            self.is_over = True
            self.error = error

    # What a test asks

    def has_begun(self, *, wait_open: bool) -> bool:
        """Whether it says what it is: a stream that is open, or all of another answer."""
        if self.is_stream and not self.is_over:
            return self.is_open or not wait_open
        return self.is_over

    def take(self, count: int) -> list[StreamEvent] | None:
        """The next events that nobody has collected; None if they haven't all come yet.

        Raises:
            MissingEvents: they can't come any more.
        """
        if len(self._events) >= count:
            return [self._events.popleft() for _ in range(count)]
        if self.is_over:
            raise self.missing(f"{self.uncollected} of {count} events came")
        return None

    def take_to_end(self) -> list[StreamEvent] | None:
        """All events up to ``stream-end``; None if that hasn't come yet.

        Raises:
            MissingEvents: it can't come any more.
        """
        names = [event.name for event in self._events]
        if END in names:
            return self.take(names.index(END) + 1)
        if self.is_over:
            raise self.missing("stream-end didn't come")
        return None

    def missing(self, problem: str) -> MissingEvents:
        """The error that says what came instead."""
        lines = [f"{self._request}: {problem}", f"  {self._state()}"]
        for event in self._events:
            data = event.data if len(event.data) <= _SHOWN else f"{event.data[:_SHOWN]}…"
            lines.append(f"  {event.name} {data!r} (id {event.id or 'none'})")
        missing = MissingEvents("\n".join(lines), self._events)
        missing.__cause__ = self.error
        self._is_told = self.error is not None
        return missing

    def raise_untold(self) -> None:
        """Raises what the app raised, unless the test knows of it."""
        if self.error is not None and not self._is_told:
            self._is_told = True
            raise self.error

    def _state(self) -> str:
        if self.error is not None:
            return f"the app raised {self.error!r}"
        if self.status is None:
            return "the app hasn't answered; does it wait for something?"
        if not self.is_stream:
            kind = self.headers["Content-Type"]
            text = self.body[:_SHOWN].decode(errors="replace")
            return f"the answer is {self.status}, {kind or 'without a type'}: no stream. {text}"
        if self.is_over:
            return f"the response {'has ended' if self.is_complete else 'was cut'}"
        if self.is_open:
            return "the stream is open"
        if self._parser.has_begun_block:
            return "the stream opens and waits: the app doesn't reach its Redis"
        return "there is no stream-open; does the app return what get_stream() gives?"
