"""A response that fails while it is written to takes no event from another, in any shell."""

from __future__ import annotations

import asyncio
import contextlib
import select
import socket
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import gevent
import pytest
from flask import Flask, Response
from werkzeug.test import create_environ, run_wsgi_app

import streamy_redis.asyncio.listener
import streamy_redis.asyncio.writer
import streamy_redis.sync.handover
import streamy_redis.sync.listener
from tests.deadline import Deadline

from .conftest import Shell

pytestmark = pytest.mark.one_server

ROOM = "room"
COUNT = 7
# Those that end a process go another way on asyncio; see tests/adapters/test_drains.py.
ERRORS = [OSError, RuntimeError, asyncio.CancelledError, gevent.GreenletExit, gevent.Timeout]
CALLS = ["write", "wake", "take"]


class Flasks:
    """Clients whose sockets are taken over."""

    def __init__(self, streams: Any) -> None:
        self._app = Flask(__name__)
        self._app.add_url_rule("/", view_func=lambda: self._view(streams))
        self._sockets: list[socket.socket] = []
        self._seen: list[bytes] = []
        self._over: set[int] = set()

    @staticmethod
    def _view(streams: Any) -> Response:
        response: Response = streams.get_stream(ROOM)
        return response

    def open(self) -> None:
        ours, theirs = socket.socketpair()
        environ = create_environ("/", environ_overrides={"gunicorn.socket": ours})
        run_wsgi_app(self._app, environ, buffered=True)
        ours.close()
        self._sockets.append(theirs)
        self._seen.append(b"")

    @property
    def bodies(self) -> list[bytes]:
        for n, connection in enumerate(self._sockets):
            while n not in self._over and select.select([connection], [], [], 0)[0]:
                with contextlib.suppress(ConnectionError):
                    if chunk := connection.recv(65536):
                        self._seen[n] += chunk
                        continue
                self._over.add(n)
        return self._seen

    @property
    def over(self) -> int:
        return len(self._over) if self.bodies else 0

    def close(self) -> None:
        for connection in self._sockets:
            connection.close()


class Starlettes:
    """Clients of an ASGI server that writes at once."""

    def __init__(self, streams: Any, shell: Shell) -> None:
        assert shell.loop is not None
        self._loop = shell.loop
        self._streams = streams.wrapped
        self._tasks: list[asyncio.Task[None]] = []
        self.bodies: list[bytes] = []

    def open(self) -> None:
        self._loop.call(lambda: self._tasks.append(asyncio.create_task(self._serve())))

    async def _serve(self) -> None:
        n = len(self.bodies)
        self.bodies.append(b"")

        async def receive() -> MutableMapping[str, Any]:
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: MutableMapping[str, Any]) -> None:
            self.bodies[n] += message.get("body", b"")

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
        await self._streams.get_stream(ROOM)(scope, receive, send)

    @property
    def over(self) -> int:
        return sum(task.done() for task in self._tasks)

    def close(self) -> None:
        for task in self._tasks:
            self._loop.loop.call_soon_threadsafe(task.cancel)


@pytest.fixture
def clients(shell: Shell, streams: Any) -> Iterator[Flasks | Starlettes]:
    clients = Starlettes(streams, shell) if shell.is_async else Flasks(streams)
    for _ in range(COUNT):
        clients.open()
    Deadline(5).until(lambda: all(b"stream-open" in body for body in clients.bodies))
    yield clients
    clients.close()


@pytest.fixture
def raise_once(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, type[BaseException]], None]:
    """The next such call of a drain raises this; all others do as they do."""
    package = streamy_redis.asyncio if shell.is_async else streamy_redis.sync
    writer = (
        package.writer.ResponseWriter  # type: ignore[attr-defined]
        if shell.is_async
        else package.handover.SocketWriter  # type: ignore[attr-defined]
    )

    def arm(call: str, error: type[BaseException]) -> None:
        owner = package.listener.Listener if call == "take" else writer
        original = getattr(owner, call)
        pending = [error]

        def fragile(*args: Any) -> Any:
            if pending:
                raise pending.pop()
            return original(*args)

        monkeypatch.setattr(owner, call, fragile)

    return arm


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("call", CALLS)
def test_the_others_get_everything(
    streams: Any,
    clients: Any,
    raise_once: Callable[[str, type[BaseException]], None],
    call: str,
    error: type[BaseException],
):
    raise_once(call, error)

    streams.send_event(ROOM, "first")
    streams.send_event(ROOM, "second")
    streams.end_stream(ROOM)

    Deadline(5).until(lambda: clients.over == COUNT, lambda: f"{clients.over}: {clients.bodies}")
    complete = [
        body
        for body in clients.bodies
        if b"data: first" in body and b"data: second" in body and b"event: stream-end" in body
    ]
    assert len(complete) == COUNT - 1, clients.bodies
    # The one that failed had ended as well, if that was what it was about to be told.
    ended = streams.stats().ended
    assert ended["end"] + ended["failed"] == COUNT
    assert streams.stats().subscribers == 0
