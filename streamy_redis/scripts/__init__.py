"""The Lua scripts: what to run, and how to read the reply."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import redis

from ..config import PAGE_BYTES
from ..core.history import HistoryPage, HistoryRequest, HistoryRun, StreamInfo
from ..core.idempotency import Nonce
from ..core.publication import NO_TAG, Position, Publication

__all__ = [
    "PUBLISH",
    "READ",
    "Command",
    "Script",
    "acknowledged",
    "ask_otherwise",
    "event_ids",
    "publish_arguments",
    "read_arguments",
    "read_commands",
    "read_info",
    "read_page",
    "runs_of",
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


# The fields of an entry of ours, and what the last may hold; see log.lua.
_FIELDS = [b"frame", b"nonce", b"kind", b"previous"]
_PREVIOUS = re.compile(rb"0|[0-9a-f]{8}")

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


def read_arguments(request: HistoryRequest) -> Command:
    """ARGV of read.lua."""
    key = request.key
    return (
        key.start,
        key.cursor or str(key.newest),
        # The entries of a page that is read as it is come from XRANGE.
        str(0 if request.count else key.limit),
        str(PAGE_BYTES),
        _witness(request.witness),
    )


def read_commands(log: str, request: HistoryRequest, *, by_source: bool = False) -> list[Command]:
    """What is sent for a request; read_page() takes the replies.

    Args:
        by_source: brings the script along, for a server that doesn't know it.
    """
    call = READ.by_source if by_source else READ.by_sha
    script = call([log], read_arguments(request))
    if not request.count:
        return [script]
    start, count = request.key.cursor or "-", request.count + (request.key.start == "after")
    # One step: nothing is sent, trimmed or deleted between what the script says and the entries.
    return [("MULTI",), script, ("XRANGE", log, start, "+", "COUNT", str(count)), ("EXEC",)]


def ask_otherwise(request: HistoryRequest, refusal: Exception) -> HistoryRequest | None:
    """What is asked instead, where it was only how it was asked that Redis refused."""
    if isinstance(refusal, redis.exceptions.NoScriptError):
        return request
    if request.count and isinstance(refusal, redis.exceptions.OutOfMemoryError):
        # Nothing may wait in a transaction then; a script that reads may run.
        return dataclasses.replace(request, count=0)
    return None


def _witness(position: Position | None) -> str:
    return "" if position is None else str(position)


def read_page(request: HistoryRequest, replies: Sequence[Any]) -> HistoryPage:
    """What the replies to read_commands() say, as the core takes it.

    Raises:
        redis.ResponseError: one of them is that.
        ValueError: they are of another form.
    """
    *before, last = replies
    answers = last if request.count and isinstance(last, list) else [*before, last]
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    if not request.count:
        return _page(answers[0])
    summary, entries = answers
    return _page_of(request, _page(summary), entries)


def _page(reply: Sequence[Any]) -> HistoryPage:
    clock, ttl, _, generated, newest, _, oldest, at_cursor, is_complete, page, size = reply
    return HistoryPage(
        clock=int(clock),
        ttl=ttl / 1000 if ttl >= 0 else None,
        generated=_numbers(generated) if generated else None,
        newest=_position(newest),
        oldest=_position(oldest),
        at_cursor=at_cursor[0].decode() if at_cursor else None,
        at_cursor_is_end=bool(at_cursor) and at_cursor[1] == b"end",
        runs=[_run(item) for item in page],
        is_complete=bool(is_complete),
        entry_size=size,
    )


def _page_of(request: HistoryRequest, summary: HistoryPage, entries: list[Any]) -> HistoryPage:
    """The page that a summary and the entries from the cursor on make."""
    is_after = request.key.start == "after"
    if not is_after and summary.newest is None:
        # Nothing of ours, as read.lua has it.
        return dataclasses.replace(summary, runs=[], is_complete=True)
    is_whole = len(entries) < request.count + is_after
    while entries and _numbers(entries[-1][0]) > (summary.generated or (0, 0)):
        # Foreign, at an id that no event can come to.
        is_whole = bool(entries.pop())
    if entries and summary.newest is not None:
        is_whole = is_whole or _numbers(entries[-1][0]) == summary.newest[:2]
    if is_after and entries and entries[0][0] == request.key.cursor.encode():
        # What the script has said of it holds.
        entries = entries[1:]
    return dataclasses.replace(summary, runs=runs_of(entries), is_complete=is_whole)


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


def runs_of(entries: Sequence[Any]) -> list[HistoryRun]:
    """Entries of a log as XRANGE gives them, by the rules of log.lua."""
    runs: list[HistoryRun] = []
    open_run: tuple[str, list[Publication]] | None = None
    for entry_id, fields in entries:
        stored = _stored(entry_id, fields)
        if stored is None:
            runs += _closed(open_run)
            foreign = Position(*_numbers(entry_id), NO_TAG)
            runs.append(HistoryRun(foreign, foreign))
            open_run = None
            continue
        publication, kind, previous = stored
        if open_run is None or not _follows(publication, open_run[1][-1]):
            runs += _closed(open_run)
            open_run = previous.decode(), []
        open_run[1].append(publication)
        if kind == b"end":
            runs += _closed(open_run)
            open_run = None
    return runs + _closed(open_run)


def _closed(run: tuple[str, list[Publication]] | None) -> list[HistoryRun]:
    if run is None:
        return []
    previous, publications = run
    first, last = publications[0].position, publications[-1].position
    assert first is not None
    assert last is not None
    frames = [publication.frame for publication in publications]
    return [HistoryRun(first, last, previous, frames, publications[-1].is_end)]


def _follows(publication: Publication, other: Publication) -> bool:
    assert publication.position is not None
    assert other.position is not None
    return publication.position.follows(other.position)


def _stored(entry_id: bytes, fields: Sequence[bytes]) -> tuple[Publication, bytes, bytes] | None:
    """The publication of an entry, its kind, and the tag before it; None if it is foreign."""
    if len(fields) != 8 or fields[0::2] != _FIELDS:
        return None
    frame, _, kind, previous = fields[1::2]
    publication = Publication.parse(frame)
    if publication is None or publication.position is None or publication.frame is not frame:
        return None
    is_at_home = entry_id == b"%d-%d" % publication.position[:2]
    return (publication, kind, previous) if is_at_home and _PREVIOUS.fullmatch(previous) else None


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
