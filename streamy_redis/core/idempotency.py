"""Idempotency: what a send is known by at each of its tries, and where an earlier one can stand.

A key that a caller chose may be repeated by anybody at any time, so the log has an index of those
(see publish.lua). Most sends have none: for them a key is drawn, which nobody has to look for at
the first try, and which isn't in the index. It says what the sender knew the log to hold when it
was drawn; whatever was sent with it stands behind that, among the newest few.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple

from .publication import Position

__all__ = ["IdempotencyKey", "Nonce", "tag_of"]

# How a drawn key is written. It leaves the process with RedisUnavailable, and may be repeated
# anywhere. A key that a caller chose of this form costs a search, no more.
_DRAWN = re.compile(r"([0-9a-f]{24})@(0-0|[1-9][0-9]{0,15}-[0-9]{1,16})")
# What the index has, and what is in front of every entry.
_INDEX = "index"
_START = "0-0"


class Nonce(NamedTuple):
    """What tells a publication from all others, and the tag that its event id carries of it."""

    text: str
    tag: str


@dataclass(frozen=True, slots=True)
class IdempotencyKey:
    """What all publications of one send are known by.

    Attributes:
        name: what their nonces are made of.
        place: what publish.lua looks for a repeat by: the index, or the position behind which it
            stands, ``<epoch>-<seq>``.
    """

    name: str
    place: str

    @classmethod
    def given(cls, key: str) -> IdempotencyKey:
        """A caller's: of his own choice, or one that was drawn for an earlier send."""
        drawn = _DRAWN.fullmatch(key)
        return cls(drawn[1], drawn[2]) if drawn else cls(key, _INDEX)

    @classmethod
    def drawn(cls, token: str, known: Position | None) -> IdempotencyKey:
        """One for a send without a key.

        Args:
            token: 24 random hex digits.
            known: what the sender knows the log to hold.
        """
        return cls(token, f"{known.epoch}-{known.seq}" if known else _START)

    def __str__(self) -> str:
        return self.name if self.place == _INDEX else f"{self.name}@{self.place}"

    def search(self, *, is_first_try: bool) -> str:
        """Where an earlier try can be: see ARGV of publish.lua. The index keeps all it is told."""
        return "" if is_first_try and self.place != _INDEX else self.place

    def nonces(self, count: int) -> list[Nonce]:
        """One a publication; no caller's key holds a NUL, so none can be another's."""
        name = self.name
        texts = [name] if count == 1 else [f"{name}\0{i}/{count}" for i in range(1, count + 1)]
        return [Nonce(text, tag_of(text)) for text in texts]


def tag_of(nonce: str) -> str:
    """The 8 hex digits that an event id carries of its publication's nonce."""
    return hashlib.blake2s(nonce.encode(), digest_size=4).hexdigest()
