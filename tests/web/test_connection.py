"""Which connection is a request's, whatever stands between its server and its endpoint."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable
from typing import Any

import gunicorn.config
import pytest
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from streamy_redis.servers.connection import Connection, _shown_by
from streamy_redis.servers.reach import objects_behind
from tests.deadline import Deadline
from tests.web.uvicorns import asked, running

App = Callable[..., Any]


class Endpoint:
    """Answers with its client's port, as far as that can be seen, or aborts its connection."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        connection = Connection(scope, receive, send)
        shown = connection.behind()
        peer = shown.transport.get_extra_info("peername") if shown is not None else ("", 0)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d;" % peer[1], "more_body": True})
        if scope["path"] == "/abort":
            connection.abort()
        while (await receive())["type"] != "http.disconnect":
            pass


def _wrapping(wrap: Callable[..., Any]) -> Callable[[App], App]:
    """A middleware that puts something else in receive's place, and copies what it can."""

    def middleware(app: App) -> App:
        async def wrapped(scope: Any, receive: Any, send: Any) -> None:
            copied = {**scope, "headers": list(scope["headers"])}
            await app(copied, wrap(copied, receive), send)

        return wrapped

    return middleware


def _closure(scope: Any, receive: Any) -> Any:
    async def mine() -> Any:
        return await receive()

    return mine


def _default(scope: Any, receive: Any) -> Any:
    async def mine(receive: Any = receive) -> Any:
        return await receive()

    return mine


async def _receive_from(given: Any, receive: Any = None) -> Any:
    return await (receive or given)()


class _Callable:
    def __init__(self, scope: Any, receive: Any) -> None:
        self.receive = receive

    async def __call__(self) -> Any:
        return await self.receive()


class _Slotted:
    __slots__ = ("request",)

    def __init__(self, scope: Any, receive: Any) -> None:
        self.request = Request(scope, receive)

    async def receive(self) -> Any:
        return await self.request.receive()


class _Gathering:
    """It knows the receive() of all its requests."""

    def __init__(self) -> None:
        self.all: list[Any] = []

    def __call__(self, scope: Any, receive: Any) -> Any:
        self.all.append(receive)
        mine = len(self.all) - 1

        async def received() -> Any:
            return await self.all[mine]()

        return received


async def _pass(request: Request, call_next: Any) -> Any:
    return await call_next(request)


WRAPPERS: dict[str, Callable[[App], Any]] = {
    "nothing": lambda app: app,
    "a closure": _wrapping(_closure),
    "a default": _wrapping(_default),
    "a partial": _wrapping(lambda scope, receive: functools.partial(_receive_from, receive)),
    "a keyword": _wrapping(
        lambda scope, receive: functools.partial(_receive_from, None, receive=receive)
    ),
    "a callable": _wrapping(_Callable),
    "a method of a slotted class": _wrapping(lambda *args: _Slotted(*args).receive),
    "what knows all requests": _wrapping(_Gathering()),
    "BaseHTTPMiddleware": lambda app: BaseHTTPMiddleware(app, _pass),
    "BaseHTTPMiddleware, five times": lambda app: functools.reduce(
        lambda inner, _: BaseHTTPMiddleware(inner, _pass), range(5), app
    ),
    "OpenTelemetry": lambda app: OpenTelemetryMiddleware(app, tracer_provider=TracerProvider()),
    "another address": lambda app: ProxyHeadersMiddleware(_wrapping(_closure)(app)),
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize(("http", "loop"), [("h11", "asyncio"), ("httptools", "uvloop")])
def test_it_is_found_behind(wrapper: str, http: Any, loop: Any):
    with running(WRAPPERS[wrapper](Endpoint()), http=http, loop=loop, lifespan="off") as server:
        clients = [asked(server.port, "/", "X-Forwarded-For: 10.1.1.1") for _ in range(3)]
        ports = [client.getsockname()[1] for client in clients]

        assert [_port_told(client) for client in clients] == ports

        for client in clients:
            client.close()


def _port_told(client: Any) -> int:
    received = b""
    while b";" not in received:
        received += client.recv(4096)
    return int(received.partition(b";")[0].split()[-1])


def _by_a_task(scope: Any, receive: Any) -> Any:
    """Nothing leads from what the endpoint has to the server's."""
    messages: asyncio.Queue[Any] = asyncio.Queue()

    async def pump() -> None:
        message: Any = {}
        while message.get("type") != "http.disconnect":
            message = await receive()
            await messages.put(message)

    _tasks.append(asyncio.get_running_loop().create_task(pump()))
    return messages.get


_tasks: list[Any] = []


@pytest.mark.parametrize("wrap", [_by_a_task, _closure])
def test_only_its_own_is_aborted(wrap: Callable[..., Any]):
    with running(_wrapping(wrap)(Endpoint()), lifespan="off") as server:
        others = [asked(server.port) for _ in range(2)]

        with asked(server.port, "/abort") as client, contextlib.suppress(ConnectionError):
            while client.recv(4096):
                pass

        for other in others:
            _port_told(other)
            other.settimeout(0.2)
            with pytest.raises(TimeoutError):
                other.recv(4096)
            other.close()


def test_what_a_server_has_besides_requests_is_no_request():
    """By HTTP/2 gunicorn shows no request, and its settings, which have a protocol as well."""
    assert list(filter(None, map(_shown_by, objects_behind(gunicorn.config.Config())))) == []


class _Many:
    """Keeps the connections of its requests, and cuts all of them for the last."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.cut: list[bool] = []
        self.took = 0.0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/cut":
            start = time.monotonic()
            self.cut = [each.close() for each in self.connections]
            self.took = time.monotonic() - start
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        self.connections.append(Connection(scope, receive, send))
        while (await receive())["type"] != "http.disconnect":
            pass


def test_many_are_cut_at_once():
    """A stopping server cuts all it has in one turn of its loop."""
    many = _Many()
    with running(_wrapping(_by_a_task)(many), lifespan="off") as server:
        clients = [asked(server.port) for _ in range(400)]
        Deadline(10).until(lambda: len(many.connections) == len(clients))

        with asked(server.port, "/cut") as client:
            assert client.recv(4096).startswith(b"HTTP/1.1 204")

        assert all(many.cut)
        assert many.took < 0.3, many.took
        for each in clients:
            assert each.recv(4096) == b""
            each.close()


def test_what_came_since_the_last_glance_is_found_as_well():
    many = _Many()
    with running(_wrapping(_by_a_task)(many), lifespan="off") as server:
        for n in range(1, 4):
            with asked(server.port) as waiting, asked(server.port, "/cut") as client:
                Deadline(10).until(lambda n=n: len(many.connections) == n)
                client.recv(4096)
                assert waiting.recv(4096) == b""
