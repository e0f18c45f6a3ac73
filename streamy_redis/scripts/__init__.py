"""The Lua scripts: what to run, and how to read the reply."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from ..core.history import HistoryPage, HistoryRequest, HistoryRun, StreamInfo
from ..core.idempotency import Nonce
from ..core.publication import NO_TAG, Position, Publication

__all__ = [
    "PUBLISH",
    "READ",
    "Command",
    "Script",
    "acknowledged",
    "event_ids",
    "publish_arguments",
    "read_arguments",
    "read_info",
    "read_page",
]

# What redis-py sends. No numbers: a handler of a signal that raises while hiredis makes text of one
# ends the process with a segmentation fault (seen with 3.5.0).
Command = tuple[str | bytes, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A script's source, and its SHA-1 by which EVALSHA names it."""

    source: bytes
    sha: str

    @classmethod
    def load(cls, name: str) -> Script:
        folder = files(__name__)
        source = b"\n".join((folder / part).read_bytes() for part in ("log.lua", name))
        return cls(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())

    def by_sha(self, keys: Sequence[str], arguments: Command) -> Command:
        """The EVALSHA command."""
        return ("EVALSHA", self.sha, str(len(keys)), *keys, *arguments)

    def by_source(self, keys: Sequence[str], arguments: Command) -> Command:
        """The EVAL command, for a server that has not seen the script (NOSCRIPT)."""
        return ("EVAL", self.source, str(len(keys)), *keys, *arguments)


PUBLISH = Script.load("publish.lua")
READ = Script.load("read.lua")


def publish_arguments(
    blocks: Sequence[bytes],
    nonces: Sequence[Nonce],
    *,
    is_end: bool,
    history_length: int,
    ttl: float,
    search: str,
    witness: Position | None,
) -> Command:
    """ARGV of publish.lua.

    Args:
        search: where a repeat may be; see IdempotencyKey.search.
    """
    arguments: list[str | bytes] = [
        "end" if is_end else "event",
        str(history_length),
        str(round(ttl * 1000)),
        search,
        _witness(witness),
    ]
    for block, nonce in zip(blocks, nonces, strict=True):
        arguments += (block, nonce.text, nonce.tag)
    return tuple(arguments)


def acknowledged(position: str, nonces: Sequence[Nonce]) -> Position | None:
    """The position of the last of some publications; None on a stream without history."""
    return Position(*_numbers(position.encode()), nonces[-1].tag) if position else None


def event_ids(last_position: str, nonces: Sequence[Nonce]) -> list[str]:
    """The ids of contiguous publications, by the position of the last."""
    if not last_position:
        return [""] * len(nonces)
    epoch, _, last = last_position.partition("-")
    first = int(last) - len(nonces) + 1
    return [f"{epoch}-{first + i}-{nonce.tag}" for i, nonce in enumerate(nonces)]


def read_arguments(request: HistoryRequest, *, most_bytes: int) -> Command:
    """ARGV of read.lua."""
    key = request.key
    return (
        key.start,
        key.cursor or str(key.newest),
        str(key.limit),
        str(most_bytes),
        _witness(request.witness),
    )


def _witness(position: Position | None) -> str:
    return "" if position is None else str(position)


def read_page(reply: Sequence[Any]) -> HistoryPage:
    """The reply of read.lua as the core takes it."""
    clock, ttl, _, generated, newest, _, oldest, at_cursor, is_complete, page = reply
    runs = [_run(item) for item in page]
    return HistoryPage(
        clock=int(clock),
        ttl=ttl / 1000 if ttl >= 0 else None,
        generated=_numbers(generated) if generated else None,
        newest=_position(newest),
        oldest=_position(oldest),
        at_cursor=at_cursor[0].decode() if at_cursor else None,
        at_cursor_is_end=bool(at_cursor) and at_cursor[1] == b"end",
        runs=runs,
        is_complete=bool(is_complete),
    )


def read_info(stream_id: str, reply: Sequence[Any]) -> StreamInfo:
    """The reply of read.lua, asked for the summary only, as ``info`` gives it."""
    _, ttl, length, generated, newest, is_ended, oldest, *_ = reply
    first, last = _position(oldest), _position(newest)
    return StreamInfo(
        stream_id,
        exists=bool(generated),
        ended=bool(is_ended),
        length=length,
        first_event_id=str(first) if first else None,
        last_event_id=str(last) if last else None,
        ttl=ttl / 1000 if ttl >= 0 else None,
    )


def _run(item: Sequence[bytes]) -> HistoryRun:
    head, *frames = item
    if not frames:
        foreign = Position(*_numbers(head), NO_TAG)
        return HistoryRun(foreign, foreign)
    (first, _), (last, is_end) = _position_and_end(frames[0]), _position_and_end(frames[-1])
    return HistoryRun(first, last, head.decode(), frames, is_end)


def _position_and_end(frame: bytes) -> tuple[Position, bool]:
    publication = Publication.parse(frame)
    # log.lua has looked at every frame, by the same rule.
    assert publication is not None
    assert publication.position is not None
    return publication.position, publication.is_end


def _position(item: Sequence[bytes]) -> Position | None:
    return Position(*_numbers(item[0]), item[1].decode()) if item else None


def _numbers(entry_id: bytes) -> tuple[int, int]:
    epoch, _, seq = entry_id.partition(b"-")
    return int(epoch), int(seq)
