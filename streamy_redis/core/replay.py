"""Replay: what of the history a client without a cursor gets."""

from __future__ import annotations

from typing import Literal

from ..exceptions import InvalidEvent

__all__ = ["Replay", "validate_replay"]

# The newest n events, 0 for none, or the whole history.
Replay = int | Literal["all"]


def validate_replay(replay: object) -> Replay:
    """The replay as it was given.

    Raises:
        InvalidEvent: it is neither a count nor "all".
    """
    if replay == "all":
        return "all"
    if isinstance(replay, bool) or not isinstance(replay, int) or replay < 0:
        raise InvalidEvent("replay", "must be 'all' or an int of at least 0")
    return replay
