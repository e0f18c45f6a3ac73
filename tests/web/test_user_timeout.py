"""How long a client may let TCP wait for it, on connections that are the server's.

That a page that vanished is given up is in test_every_server.py; here is what else the connection
carries, which may take its time.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest
from cheroot.wsgi import Server
from flask import Flask
from starlette.applications import Starlette
from starlette.routing import Route

from streamy_redis import AsyncStreamManager, StreamConfig, StreamManager
from streamy_redis.servers import sockets
from tests.deadline import Deadline
from tests.web.uvicorns import asked, running

OPTION = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)


def _timeouts_towards(client: socket.socket) -> list[int]:
    """Of the server's ends, in milliseconds; 0 is the kernel's own."""
    here, there = client.getpeername(), client.getsockname()
    return [each.getsockopt(*OPTION) for each in sockets.between(here, there, came_just_now=True)]


@contextlib.contextmanager
def _uvicorn(config: StreamConfig, url: str, wrap: Callable[[Any], Any]) -> Iterator[int]:
    streams = AsyncStreamManager(url, config=config)

    async def events(request: Any) -> Any:
        return streams.get_stream("room")

    app = Starlette(routes=[Route("/", events)], lifespan=streams.lifespan)
    with running(wrap(app)) as server:
        yield server.port
        # With a lifespan to its end.
        server.server.should_exit = True
        assert server.is_gone(10)


@contextlib.contextmanager
def _cheroot(config: StreamConfig, url: str, wrap: Callable[[Any], Any]) -> Iterator[int]:
    app = Flask(__name__)
    streams = StreamManager(url, app=app, config=config)
    app.get("/")(lambda: streams.get_stream("room"))
    server = Server(("127.0.0.1", 0), wrap(app), numthreads=2)
    server.prepare()
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server.bind_addr[1]
    finally:
        streams.close()
        server.stop()
        thread.join(10)


def _behind_a_task(app: Any) -> Any:
    """Nothing leads from the endpoint to the server's connection: it is looked for a bit later."""

    async def wrapped(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await app(scope, receive, send)
            return
        messages: asyncio.Queue[Any] = asyncio.Queue()

        async def pump() -> None:
            message: Any = {}
            while message.get("type") != "http.disconnect":
                message = await receive()
                await messages.put(message)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(pump)
            await app(scope, messages.get, send)
            tasks.cancel_scope.cancel()

    return wrapped


@pytest.mark.parametrize(
    ("served", "wrap"),
    [(_uvicorn, lambda app: app), (_uvicorn, _behind_a_task), (_cheroot, lambda app: app)],
    ids=["uvicorn", "uvicorn, behind a task", "cheroot"],
)
def test_it_is_bounded_while_a_stream_is_open(
    served: Any, wrap: Callable[[Any], Any], redis_url: str, prefix: str
):
    # TCP may wait for half a second longer.
    config = StreamConfig(prefix=prefix, write_timeout=6.5)
    with (
        served(config, redis_url, wrap) as port,
        asked(port) as client,
        StreamManager(redis_url, config=config) as sender,
    ):
        Deadline(10).until(
            lambda: _timeouts_towards(client) == [7000], lambda: _timeouts_towards(client)
        )

        sender.end_stream("room")

        Deadline(10).until(lambda: _timeouts_towards(client) == [0], "others may wait longer")


def test_what_a_server_has_said_itself_stays():
    with socket.socket() as connection:
        connection.setsockopt(*OPTION, 1234)

        sockets.swap_user_timeout(connection, 0, 7000)
        sockets.swap_user_timeout(connection, 7000, 0)

        assert connection.getsockopt(*OPTION) == 1234


def test_a_unix_socket_has_none():
    one, other = socket.socketpair()
    with one, other:
        sockets.swap_user_timeout(one, 0, 7000)
