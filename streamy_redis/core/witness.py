"""Witnesses: what this process knows a stream to hold, since a server acknowledged it.

A server that takes over may never have got the newest events. Its log looks whole: only who
remembers a position that it doesn't hold can tell. So each send and each read names one, and the
script begins a new life of the stream where the log doesn't hold it; then every cursor of the old
life is a gap, those of readers who lag or are away too.
"""

from __future__ import annotations

from .publication import Position

__all__ = ["Witnesses"]


class Witnesses:
    """The newest position that was acknowledged to a sender, of each stream it sent to lately.

    Not thread-safe: the shell holds its lock.

    Args:
        most: streams that are remembered; the one that was sent to longest ago is forgotten.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        # By stream, the one that was sent to last at the end.
        self._positions: dict[str, Position] = {}

    def of(self, stream_id: str) -> Position | None:
        """What the next send to the stream names."""
        return self._positions.get(stream_id)

    def acknowledge(self, stream_id: str, position: Position) -> None:
        """A server has stored a publication there. Acknowledgements may come in any order."""
        known = self._positions.pop(stream_id, position)
        self._positions[stream_id] = max(known, position)
        if len(self._positions) > self._most:
            del self._positions[next(iter(self._positions))]

    def forget(self, stream_id: str) -> None:
        """The stream was deleted on purpose."""
        self._positions.pop(stream_id, None)
