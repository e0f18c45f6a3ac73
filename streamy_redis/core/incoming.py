"""What a subscription has received, and has not given yet to whoever iterates."""

from __future__ import annotations

from collections import deque

from ..exceptions import RedisUnavailable, StreamyError
from .event import ReceivedEvent, read_frame
from .publication import Position
from .subscriber import Outgoing

__all__ = ["Incoming"]


class Incoming:
    """The events of one subscription, whichever readers they come from, one after another.

    Attributes:
        stream_id: the stream.
        cursor: of the newest event that came, or where to begin; None to begin as ``replay`` says.
        events: what whoever iterates gets next.
        is_finished: no reader is needed any more.
        is_cut: that is so without the stream's end, and not by the wish of whoever iterates.
    """

    def __init__(self, stream_id: str, cursor: Position | None) -> None:
        self.stream_id = stream_id
        self.cursor = cursor
        self.events: deque[ReceivedEvent] = deque()
        self.is_finished = False
        self.is_cut = False

    def receive(self, outgoing: Outgoing) -> bool:
        """Takes what a reader was given; False if another reader has to go on from the cursor.

        That one was too slow: the history bridges it.
        """
        for frame in outgoing.frames:
            event = read_frame(self.stream_id, frame)
            self.cursor = Position.parse(event.id) or self.cursor
            self.events.append(event)
        closed = outgoing.closed
        if closed is None:
            return True
        self.is_finished = not closed.is_abrupt
        self.is_cut = self.is_finished and closed.is_cut
        return self.is_finished

    def close(self) -> None:
        """Whoever iterates wants no more."""
        self.events.clear()
        self.is_finished = True
        self.is_cut = False

    def cut(self) -> StreamyError:
        """Raised when it is cut, behind the last event: nobody takes half for whole."""
        cursor = str(self.cursor) if self.cursor is not None else None
        return StreamyError(
            f"the subscription to {self.stream_id!r} was stopped before its stream ended, since "
            "the manager was closed or the process stops; subscribe again with "
            f"last_event_id={cursor!r} for what follows"
        )

    def unavailable(self, reason: str) -> RedisUnavailable:
        """Raised when it can't begin."""
        return RedisUnavailable(f"could not subscribe to {self.stream_id!r}: {reason}")

    def nothing_within(self, timeout: float) -> TimeoutError:
        """Raised when nothing came."""
        return TimeoutError(f"no event of {self.stream_id!r} within {timeout:g} s")
