"""A server whose managers log in as the user of docs/security.md."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from streamy_redis import StreamConfig
from tests.conftest import FLAVOURS
from tests.managers import AsyncioManager, LoopThread, Reader, ThreadsManager
from tests.readme.document import ROOT
from tests.servers import RedisServer, installed_binary

PASSWORD = "a pass/word:@%"
LINE = re.compile(r"^ACL SETUSER (\S+) (.+)$", re.MULTILINE)


def documented_user() -> tuple[str, list[str]]:
    """The name and the rules, as they stand in the document."""
    [(name, rules)] = LINE.findall((ROOT / "docs" / "security.md").read_text())
    return name, rules.split()


NAME, RULES = documented_user()
# What may be left out one by one; what is in front of them makes the user.
PERMISSIONS = [rule for rule in RULES if rule[0] in "+~&"]


class GuardedServer:
    """A throw-away server on which only the user of the document is let in."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.admin: redis.Redis = server.connect()
        self.is_redis = Path(server.binary).name == "redis-server"

    def allow(self, rules: list[str], *, name: str = NAME) -> None:
        """Makes the user anew, with these rules and a password of this test."""
        filled = [f">{PASSWORD}" if rule[0] == ">" else rule for rule in rules]
        self.admin.execute_command("ACL", "SETUSER", name, *filled)

    def url(self, name: str = NAME, password: str = PASSWORD) -> str:
        """With name and password percent-encoded, as the document tells."""
        encoded = "".join(f"%{byte:02x}" for byte in password.encode())
        return self.server.url.replace("//", f"//{name}:{encoded}@")

    def close(self) -> None:
        self.admin.close()


@pytest.fixture(scope="session", params=FLAVOURS)
def guarded(request: pytest.FixtureRequest) -> Iterator[GuardedServer]:
    """Each kind of server in turn."""
    binary = None if request.param == "valkey" else installed_binary()
    with RedisServer(binary) as server, contextlib.closing(GuardedServer(server)) as guarded:
        yield guarded


@pytest.fixture(scope="session")
def loop_thread() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


NewManager = Callable[..., Any]


@pytest.fixture(params=["threads", "asyncio"])
def new_manager(
    request: pytest.FixtureRequest, guarded: GuardedServer, loop_thread: LoopThread
) -> Iterator[NewManager]:
    """Managers of both kinds, with the default prefix, to which the document's line belongs."""
    with contextlib.ExitStack() as stack:

        def build(url: str | None = None, **config: Any) -> Any:
            own: dict[str, Any] = {"config": StreamConfig(**config)}
            kind: Any = ThreadsManager
            if request.param == "asyncio":
                kind, own = AsyncioManager, own | {"loop": loop_thread}
            return stack.enter_context(contextlib.closing(kind(url or guarded.url(), **own)))

        yield build


@pytest.fixture
def new_reader() -> Iterator[Callable[..., Reader]]:
    """Subscriptions that are left at the end, before their managers are closed."""
    readers: list[Reader] = []

    def build(manager: Any, stream_id: str, **options: Any) -> Reader:
        readers.append(Reader(manager.subscribe(stream_id, **options)))
        return readers[-1]

    yield build
    for reader in readers:
        reader.leave()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], str]:
    """All that anybody has logged, DEBUG included, with tracebacks."""
    caplog.set_level(logging.DEBUG)

    def text() -> str:
        return caplog.text

    return text
