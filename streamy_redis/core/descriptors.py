"""Descriptors: how many a process has open, and whether a stream may take one more."""

from __future__ import annotations

from dataclasses import dataclass

from ..config import HEADROOM_PART, MOST_HEADROOM

__all__ = ["Descriptors"]


@dataclass(frozen=True, slots=True)
class Descriptors:
    """Those of a process, as of one moment.

    Attributes:
        open: how many it has.
        limit: how many it may have.
    """

    open: int
    limit: int

    @property
    def headroom(self) -> int:
        """How many streams leave to everything else."""
        return min(int(self.limit * HEADROOM_PART), MOST_HEADROOM)

    @property
    def are_short(self) -> bool:
        """Whether there is no room for one more stream."""
        return self.open >= self.limit - self.headroom
