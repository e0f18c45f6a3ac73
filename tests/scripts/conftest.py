"""One log and one channel on each kind of server, and the scripts as plain calls."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import redis

from streamy_redis import StreamConfig, connections
from streamy_redis.core.history import HistoryKey, HistoryPage, HistoryRequest
from streamy_redis.core.idempotency import tag_of
from streamy_redis.core.publication import Position
from streamy_redis.scripts import PUBLISH, READ, Script, read_page
from streamy_redis.sync.history import HistoryReader
from tests.deadline import Deadline

# Of frames in a page, unless a test says otherwise: more than it has.
MOST_BYTES = 1 << 20
_STAMP = re.compile(rb"(?<=\n\n):[0-9]{16}\n\Z")


@dataclass(frozen=True)
class Entry:
    """An entry of ours, as a reader of Redis sees it."""

    id: str
    frame: bytes
    nonce: str
    kind: str
    previous: str


class Log:
    """The log and the channel of one stream, with the scripts that work on them."""

    def __init__(self, store: redis.Redis, url: str, prefix: str) -> None:
        self.store = store
        self._reader = HistoryReader(
            connections.pool(url, connections=1, timeout=5), StreamConfig(prefix=prefix)
        )
        self.channel = f"{prefix}:{{room}}"
        self.key = f"{self.channel}:log"
        self._pubsub = store.pubsub()
        self._pubsub.subscribe(self.channel)
        assert self._pubsub.get_message(timeout=5)["type"] == "subscribe"
        self._nonces = 0

    # -- publish.lua ------------------------------------------------------------------------------

    def publish(
        self,
        *data: str,
        kind: str = "event",
        nonce: str | None = None,
        history_length: int = 1000,
        ttl_ms: int = 60_000,
        search: str = "",
        witness: str = "",
    ) -> tuple[str, str]:
        """Status and position. Several data are one batch; the nonce is that of the last."""
        arguments: list[Any] = [kind, history_length, ttl_ms, search, witness]
        for n, text in enumerate(data):
            self._nonces += 1
            own = nonce if nonce and n == len(data) - 1 else f"nonce-{self._nonces}"
            block = ("event: stream-end\n" if kind == "end" else "") + f"data: {text}\n"
            arguments += [block, own, tag_of(own)]
        reply = self._run(PUBLISH, self.key, arguments=arguments)
        return reply[0].decode(), reply[1].decode()

    def cost(self, nonces: Sequence[str], *, search: str) -> float:
        """Microseconds of the server for one event, of many that come in one piece."""
        sha = self.store.script_load(PUBLISH.source)
        before = self._spent()
        pipeline = self.store.pipeline(transaction=False)
        for nonce in nonces:
            arguments = ["event", 1000, 60_000, search, "", f"data: {'x' * 1000}\n", nonce]
            pipeline.evalsha(sha, 1, self.key, *arguments, tag_of(nonce))
        pipeline.execute()
        return (self._spent() - before) / len(nonces)

    def _spent(self) -> int:
        spent = self.store.info("commandstats").get("cmdstat_evalsha")
        return spent["usec"] if spent else 0

    def end(self, data: str = "", **kwargs: Any) -> tuple[str, str]:
        return self.publish(data, kind="end", **kwargs)

    def published(self, count: int) -> list[bytes]:
        """The frames in the next messages of the channel, and that there are no more."""
        return [_STAMP.sub(b"", message) for message in self.messages(count)]

    def messages(self, count: int) -> list[bytes]:
        """The same, with when it was sent where a message says so."""
        messages: list[bytes] = []

        def take() -> bool:
            message = self._pubsub.get_message(timeout=0.05)
            if message:
                messages.append(message["data"])
            return len(messages) >= count

        Deadline(5).until(take, lambda: f"{len(messages)} of {count} messages")
        extra = self._pubsub.get_message(timeout=0.02)
        assert extra is None, extra
        return messages

    # -- read.lua ---------------------------------------------------------------------------------

    def read(
        self,
        start: str,
        argument: str | int = "",
        *,
        limit: int = 500,
        most_bytes: int = MOST_BYTES,
        witness: str = "",
    ) -> Page:
        arguments = [start, argument, limit, most_bytes, witness]
        reply = self._run(READ, self.key, arguments=arguments)
        if limit and most_bytes == MOST_BYTES and start != "newest":
            self._read_as_it_is(start, str(argument), limit, reply)
        return Page(*reply)

    def _read_as_it_is(self, start: Any, cursor: str, limit: int, reply: list[Any]) -> None:
        """The same page from XRANGE: it says the same."""
        key = HistoryKey("room", start, cursor, 0, limit)
        [page] = self._reader.read([HistoryRequest(key, count=limit)])
        assert isinstance(page, HistoryPage), page
        told = read_page(HistoryRequest(key), [reply])
        told = replace(told, clock=page.clock, ttl=page.ttl, entry_size=page.entry_size)
        assert page == told

    @property
    def index(self) -> dict[str, str]:
        """The nonces that the index has, and where the entry of each stands, or stood."""
        if not self.store.xinfo_groups(self.key):
            return {}
        pending = self.store.xpending_range(self.key, "idempotency keys", "-", "+", 10_000)
        return {each["consumer"].decode(): each["message_id"].decode() for each in pending}

    def calls(self, command: str) -> int:
        """How often the server has carried out a command, in scripts too."""
        counted = self.store.info("commandstats").get(f"cmdstat_{command}")
        return counted["calls"] if counted else 0

    # -- the log itself ---------------------------------------------------------------------------

    @property
    def raw(self) -> list[tuple[str, dict[bytes, bytes]]]:
        return [(entry_id.decode(), fields) for entry_id, fields in self.store.xrange(self.key)]

    @property
    def entries(self) -> list[Entry]:
        """All of it; a foreign entry is an error."""
        return [
            Entry(
                entry_id,
                fields[b"frame"],
                fields[b"nonce"].decode(),
                fields[b"kind"].decode(),
                fields[b"previous"].decode(),
            )
            for entry_id, fields in self.raw
        ]

    @property
    def ids(self) -> list[str]:
        return [entry_id for entry_id, _ in self.raw]

    def add_foreign(self, entry_id: str = "*") -> str:
        return self.store.xadd(self.key, {"foreign": "entry"}, id=entry_id).decode()

    def add_ours(
        self,
        entry_id: str,
        *,
        nonce: str = "n",
        kind: str = "event",
        block: str = "data: placed\n",
    ) -> None:
        """An entry of our form at an id of the test's choice."""
        frame = f"{block}id: {entry_id}-{tag_of(nonce)}\n\n"
        fields = {"frame": frame, "nonce": nonce, "kind": kind, "previous": "0"}
        self.store.xadd(self.key, fields, id=entry_id)

    def clock(self) -> int:
        seconds, micros = self.store.time()
        return seconds * 1_000_000 + micros

    def _run(self, script: Script, *keys: str, arguments: list[Any]) -> Any:
        return self.store.execute_command(*script.by_source(keys, tuple(arguments)))

    def close(self) -> None:
        self._pubsub.close()
        self._reader.close()


@dataclass(frozen=True)
class Page:
    """The reply of read.lua, field by field as it is documented."""

    clock: bytes
    ttl: int
    length: int
    generated: bytes
    newest: list[bytes]
    ended: int
    oldest: list[bytes]
    at_cursor: list[bytes]
    complete: int
    runs: list[list[bytes]]
    size: int

    @property
    def frames(self) -> list[bytes]:
        return [frame for _, *frames in self.runs for frame in frames]

    @property
    def ids(self) -> list[str]:
        """Of all entries, foreign ones among them."""
        return [position for run in self.shape for position in run]

    @property
    def shape(self) -> list[list[str]]:
        """The ids of each run, as the frames have them; of a foreign entry, its own."""
        return [
            [_position(frame) for frame in frames] or [head.decode()] for head, *frames in self.runs
        ]


def _position(frame: bytes) -> str:
    position = Position.parse(frame.split(b"\n")[-3].removeprefix(b"id: ").decode())
    assert position is not None, frame
    return f"{position.epoch}-{position.seq}"


@pytest.fixture
def log(any_redis_url: str, prefix: str) -> Iterator[Log]:
    store = redis.Redis.from_url(any_redis_url)
    log = Log(store, any_redis_url, prefix)
    yield log
    log.close()
    store.close()


def epoch_of(position: str) -> int:
    return int(position.partition("-")[0])


def seq_of(position: str) -> int:
    return int(position.partition("-")[2])


def now_us() -> int:
    return time.time_ns() // 1000
