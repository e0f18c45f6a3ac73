"""The shells that each test of the contract runs on."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Iterator
from typing import Any

import gevent.monkey
import pytest
import redis

from streamy_redis import StreamConfig
from tests.conftest import FLAVOURS, SharedServers
from tests.deadline import Deadline
from tests.managers import AsyncioManager, LoopThread, Reader, ThreadsManager

# In the process that test_gevent.py starts, where everything is patched.
GEVENT = os.environ.get("STREAMY_TEST_SHELL") == "gevent"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "shell" in metafunc.fixturenames:
        marks = {mark.name for mark in metafunc.definition.iter_markers()}
        metafunc.parametrize("shell", list(_shells(marks)), indirect=True)


def _shells(marks: set[str]) -> Iterator[str]:
    flavours = FLAVOURS if "each_server" in marks and "one_server" not in marks else FLAVOURS[:1]
    if GEVENT:
        assert gevent.monkey.is_module_patched("threading")
        yield f"gevent-{FLAVOURS[0]}"
        return
    for words in ("threads", "asyncio"):
        for flavour in flavours if "refusal" not in marks else ():
            yield f"{words}-{flavour}"
        if not marks & {"real_server", "one_server"}:
            yield f"{words}-memory"


class Shell:
    """Builds managers of one kind, all on one store and under one prefix."""

    def __init__(self, name: str, url: str, prefix: str, loop: LoopThread | None) -> None:
        self.name = name
        self.is_async = name.startswith("asyncio")
        self.is_memory = name.endswith("memory")
        self.url = url
        self.prefix = prefix
        self.loop = loop
        self._managers: list[Any] = []
        self._readers: list[Reader] = []

    def config(self, **changes: Any) -> StreamConfig:
        return StreamConfig(**{"prefix": self.prefix, **changes})

    def manager(self, redis: Any = None, **config: Any) -> Any:
        """A manager, on the shell's server unless another is given."""
        return self._add(self.url if redis is None else redis, config)

    def unnamed_manager(self, **config: Any) -> Any:
        """A manager that finds its Redis by itself."""
        return self._add(None, config)

    def _add(self, redis: Any, config: dict[str, Any]) -> Any:
        if self.loop is not None:
            manager = AsyncioManager(redis, config=self.config(**config), loop=self.loop)
        else:
            manager = ThreadsManager(redis, config=self.config(**config))
        self._managers.append(manager)
        return manager

    def reader(self, manager: Any, stream_id: str, **kwargs: Any) -> Reader:
        reader = Reader(manager.subscribe(stream_id, **kwargs))
        self._readers.append(reader)
        return reader

    def store(self) -> redis.Redis:
        """A bare connection to what the managers use."""
        if self.is_memory:
            return memory_store()
        return redis.Redis.from_url(self.url)

    def channel(self, stream_id: str) -> str:
        """From the design, not from the package: `%`, `{` and `}` percent-encoded."""
        encoded = stream_id.replace("%", "%25").replace("{", "%7B").replace("}", "%7D")
        return f"{self.prefix}:{{{encoded}}}"

    def log(self, stream_id: str) -> str:
        return self.channel(stream_id) + ":log"

    def close(self) -> None:
        for manager in self._managers:
            manager.close()
        for reader in self._readers:
            reader.leave()
            reader.join()


def memory_store() -> redis.Redis:
    from streamy_redis.connections import pool

    return redis.Redis(connection_pool=pool("memory://", connections=4, timeout=5))


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


@pytest.fixture
def shell(
    request: pytest.FixtureRequest, shared_servers: SharedServers, prefix: str
) -> Iterator[Shell]:
    name = request.param
    flavour = name.rpartition("-")[2]
    url = "memory://" if flavour == "memory" else shared_servers.url(flavour)
    loop = request.getfixturevalue("loop_thread") if name.startswith("asyncio") else None
    threads = set(threading.enumerate())
    shell = Shell(name, url, prefix, loop)
    yield shell
    shell.close()
    # Nothing of a closed manager is left behind.
    if loop is not None:
        Deadline(5).until(lambda: not loop.tasks(), lambda: f"left behind: {loop.tasks()}")
    else:
        Deadline(5).until(
            lambda: set(threading.enumerate()) <= threads,
            lambda: f"left behind: {set(threading.enumerate()) - threads}",
        )


@pytest.fixture
def streams(shell: Shell) -> Any:
    """A manager with the default configuration."""
    return shell.manager()


@pytest.fixture
def store(shell: Shell) -> Iterator[redis.Redis]:
    connection = shell.store()
    yield connection
    connection.close()


@dataclasses.dataclass(frozen=True)
class EventId:
    """An event id, taken apart."""

    epoch: int
    seq: int
    tag: str

    @classmethod
    def parse(cls, event_id: str) -> EventId:
        epoch, seq, tag = event_id.split("-")
        return cls(int(epoch), int(seq), tag)
