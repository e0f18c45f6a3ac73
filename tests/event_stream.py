"""The oracle: an event stream parser, sentence by sentence from the HTML standard.

Section 9.2.6, "Interpreting an event stream". Nothing here is taken from the package under test,
and nothing is lenient: what this parser sees is what a browser sees.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ["EventStreamParser", "MessageEvent", "events_of"]

_LINE_END = re.compile("\r\n|\r|\n")


@dataclass(frozen=True, slots=True)
class MessageEvent:
    """What a page's listener is given."""

    type: str
    data: str
    last_event_id: str


class EventStreamParser:
    """Bytes in, in pieces of any size; events out.

    `last_event_id` is "the event source's last event ID string", which outlives the connection:
    give the one of the parser before. `retry` is the last reconnection time in ms, None at first.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry: int | None = None
        # "The UTF-8 decode algorithm strips one leading UTF-8 Byte Order Mark (BOM), if any."
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_start = True
        self._after_cr = False
        self._line: list[str] = []
        # "When a stream is parsed, a data buffer, an event type buffer, and a last event ID buffer
        # must be associated with it. They must be initialized to the empty string."
        self._data: list[str] = []  # each with its newline
        self._type = ""
        self._id = ""
        self._events: list[MessageEvent] = []

    def feed(self, chunk: bytes) -> list[MessageEvent]:
        """The events that this chunk completes."""
        text = self._decoder.decode(chunk)
        if text and self._at_start:
            self._at_start = False
            text = text.removeprefix("\ufeff")
        for line in self._lines(text):
            self._take_line(line)
        done, self._events = self._events, []
        return done

    def _lines(self, text: str) -> Iterator[str]:
        # "Lines must be separated by either a CRLF pair, a single LF, or a single CR." Not
        # str.splitlines(), which also cuts at U+2028 and others. A CR at the end of a chunk ends
        # its line at once; an LF at the start of the next then belongs to it.
        if text and self._after_cr:
            self._after_cr = False
            text = text.removeprefix("\n")
        if text:
            self._after_cr = text.endswith("\r")
        *ended, rest = _LINE_END.split(text)
        for line in ended:
            self._line.append(line)
            whole = "".join(self._line)
            self._line.clear()
            yield whole
        self._line.append(rest)

    def _take_line(self, line: str) -> None:
        if line == "":
            self._dispatch()
        elif line.startswith(":"):
            pass
        elif ":" in line:
            field, value = line.split(":", 1)
            self._take_field(field, value.removeprefix(" "))
        else:
            self._take_field(line, "")

    def _take_field(self, field: str, value: str) -> None:
        if field == "event":
            self._type = value
        elif field == "data":
            self._data.append(value + "\n")
        elif field == "id":
            if "\0" not in value:
                self._id = value
        elif field == "retry" and value and all(c in "0123456789" for c in value):
            self.retry = int(value)

    def _dispatch(self) -> None:
        self.last_event_id = self._id
        data = "".join(self._data)
        name, self._type = self._type or "message", ""
        self._data.clear()
        if data != "":
            self._events.append(MessageEvent(name, data.removesuffix("\n"), self._id))

    # "Once the end of the file is reached, any pending data must be discarded. (If the file ends in
    # the middle of an event, before the final empty line, the incomplete event is not dispatched.)"
    # Hence no close(): whoever stops feeding has discarded it.


def events_of(stream: bytes | Iterable[bytes]) -> list[MessageEvent]:
    """All events of a whole stream."""
    parser = EventStreamParser()
    chunks = [stream] if isinstance(stream, bytes) else stream
    return [event for chunk in chunks for event in parser.feed(chunk)]
