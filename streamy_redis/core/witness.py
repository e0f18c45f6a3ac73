"""Witnesses: what this process knows a stream to hold, since a server acknowledged or showed it.

A server that takes over may never have got the newest events. Its log looks whole: only who
remembers a position that it doesn't hold can tell. So each send and each read names one, and the
script begins a new life of the stream where the log doesn't hold it; then every cursor of the old
life is a gap, those of readers who lag or are away too.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable

from .publication import Position

__all__ = ["Witnesses"]


class Witnesses:
    """The newest position of each stream that this process sent to, or has heard of, lately.

    It outlives connections, event loops and what a process has open: a manager has one.

    Threads share it without a lock, which a handler of a signal could wait for in vain: each change
    is one call of C. Of two that note something in one moment the older may stay, which is no harm.

    Args:
        most: streams that are remembered; the one that was sent to longest ago is forgotten.
        inherited: what is known already, of the same Redis and prefix.
    """

    def __init__(self, most: int, *, inherited: Witnesses | None = None) -> None:
        self._most = most
        # By stream, the one that was sent to last at the end.
        self._positions: OrderedDict[str, Position] = OrderedDict()
        if inherited is not None:
            self._positions = inherited._positions.copy()
        # What the hub has heard is looked up there: an event is heard far more often than told of.
        self._heard: Callable[[str], Position | None] = _nothing

    def listen_to(self, heard: Callable[[str], Position | None]) -> None:
        """Says who knows what was heard of the streams that have readers here."""
        self._heard = heard

    def of(self, stream_id: str) -> Position | None:
        """What the next send to the stream, or read of it, names."""
        heard = self._heard(stream_id)
        known = self._positions.get(stream_id)
        return max(known, heard) if known and heard else known or heard

    def note(self, stream_id: str, position: Position) -> None:
        """A server has stored a publication there. What is older than what is known is nothing."""
        known = self._positions.get(stream_id, position)
        self._positions[stream_id] = max(known, position)
        # Another thread may have forgotten it, or the oldest.
        with contextlib.suppress(KeyError):
            self._positions.move_to_end(stream_id)
            if len(self._positions) > self._most:
                self._positions.popitem(last=False)

    def forget(self, stream_id: str) -> None:
        """The stream was deleted on purpose."""
        self._positions.pop(stream_id, None)


def _nothing(stream_id: str) -> None:
    return None
