"""Stats: what a process counts of its streams."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .subscriber import CloseReason

__all__ = ["StreamStats"]


def _no_ends() -> dict[str, int]:
    return {reason.value: 0 for reason in CloseReason}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamStats:
    """The figures of one manager in this process, those of its past included.

    Attributes:
        subscribers: open responses, as ``max_subscribers`` counts them.
        streams: channels that are listened to; one stays for 2 s after its last subscriber.
        frames_written: every event once for each response or subscription that it was written
            to, and with them the stream's own events, ``retry:`` lines and keep-alives.
        backlog_high_water: the most live events that ever waited for one subscriber to take
            them; at ``max_backlog`` its response ends.
        resets: ``stream-reset`` events, one for each subscriber that got one.
        reconnects: how often the Pub/Sub connection was made anew.
        refused: requests answered 503, since ``max_subscribers`` responses were open, or the
            process has too few descriptors left.
        short_of_descriptors: how many of these for want of descriptors.
        ended: responses that have ended, by reason: ``disconnect``, ``end``, ``overflow``,
            ``timeout``, ``lifetime``, ``shutdown``, ``failed``.
    """

    subscribers: int = 0
    streams: int = 0
    frames_written: int = 0
    backlog_high_water: int = 0
    resets: int = 0
    reconnects: int = 0
    refused: int = 0
    short_of_descriptors: int = 0
    ended: Mapping[str, int] = field(default_factory=_no_ends)

    def __add__(self, other: StreamStats) -> StreamStats:
        """Both together: sums, and the higher of the high waters."""
        return StreamStats(
            subscribers=self.subscribers + other.subscribers,
            streams=self.streams + other.streams,
            frames_written=self.frames_written + other.frames_written,
            backlog_high_water=max(self.backlog_high_water, other.backlog_high_water),
            resets=self.resets + other.resets,
            reconnects=self.reconnects + other.reconnects,
            refused=self.refused + other.refused,
            short_of_descriptors=self.short_of_descriptors + other.short_of_descriptors,
            ended={reason: count + other.ended[reason] for reason, count in self.ended.items()},
        )
