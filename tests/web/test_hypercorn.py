"""hypercorn's requests: which connection is whose, and how one of many on it is broken off."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h2.connection
import h2.errors
import h2.events
import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config
from hypercorn.middleware import ProxyFixMiddleware
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route

from streamy_redis import AsyncStreamManager, StreamConfig
from streamy_redis.servers.connection import Connection
from tests.deadline import Deadline

pytestmark = pytest.mark.alone

App = Callable[..., Any]


class Endpoint:
    """Says something, then closes or aborts its connection, or waits for its client to leave."""

    def __init__(self) -> None:
        self.has_cut: list[bool] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        connection = Connection(scope, receive, send)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"something", "more_body": True})
        if scope["path"] == "/full":
            # More than a client that doesn't read has room for.
            asyncio.get_running_loop().call_later(0.2, connection.abort)
            for _ in range(1000):
                await send({"type": "http.response.body", "body": bytes(65536), "more_body": True})
        if scope["path"] == "/close":
            self.has_cut.append(connection.close())
        while (await receive())["type"] != "http.disconnect":
            pass
        self.has_cut.append(True)


async def _pass(request: Any, call_next: Any) -> Any:
    return await call_next(request)


WRAPPERS: dict[str, Callable[[App], Any]] = {
    "nothing": lambda app: app,
    "what completes responses": lambda app: BaseHTTPMiddleware(app, _pass),
    "another address": lambda app: ProxyFixMiddleware(BaseHTTPMiddleware(app, _pass)),
}


class Hypercorn:
    """hypercorn in a thread of this process, on a unix socket."""

    def __init__(self, app: Any, path: Path) -> None:
        self.path = str(path)
        self._config = Config()
        self._config.bind = [f"unix:{path}"]
        # Longer than a test lasts: it waits for whatever doesn't end by itself.
        self._config.graceful_timeout = 60
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._app = app
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        serving = serve(self._app, self._config, shutdown_trigger=self._stop.wait)  # type: ignore[arg-type]
        self._loop.run_until_complete(serving)
        self._loop.close()

    def __enter__(self) -> Hypercorn:
        self._thread.start()
        Deadline(10).until(self._answers, "hypercorn is up")
        return self

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(self.path) == 0

    def stop(self) -> None:
        # RuntimeError: it has stopped already.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._stop.set)

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
        self._thread.join(10)
        assert not self._thread.is_alive()

    @contextlib.contextmanager
    def connected(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(10)
            client.connect(self.path)
            yield client


def by_http_1(client: socket.socket, path: str) -> bytes:
    """What comes until the connection is closed."""
    head = [f"GET {path} HTTP/1.1", "Host: test", "X-Forwarded-For: 10.1.1.1", "", ""]
    client.sendall("\r\n".join(head).encode())
    received = b""
    with contextlib.suppress(ConnectionError):
        while piece := client.recv(65536):
            received += piece
    return received


class Http2:
    """A client's side of HTTP/2, which gives the server no more room unless it is told to.

    Attributes:
        received, resets, ends: by stream.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._connection = h2.connection.H2Connection()
        self._connection.initiate_connection()
        self.received: dict[int, bytes] = {}
        self.resets: list[int] = []
        self.ends: list[int] = []

    def get(self, path: str) -> int:
        stream = self._connection.get_next_available_stream_id()
        pseudo = {":method": "GET", ":path": path, ":scheme": "http", ":authority": "test"}
        fields = [*pseudo.items(), ("x-forwarded-for", "10.1.1.1")]
        self._connection.send_headers(stream, fields, end_stream=True)
        return stream

    def make_room(self) -> None:
        self._connection.increment_flow_control_window(2**16)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._socket.sendall(self._connection.data_to_send())
            piece = self._socket.recv(65536)
            assert piece, "the whole connection was closed"
            for event in self._connection.receive_data(piece):
                self._take(event)

    def _take(self, event: h2.events.Event) -> None:
        if isinstance(event, h2.events.DataReceived):
            assert event.stream_id is not None
            self.received[event.stream_id] = self.received.get(event.stream_id, b"") + event.data
        elif isinstance(event, h2.events.StreamReset):
            # Without an error it would be no more than that the rest of a request isn't needed.
            assert event.error_code == h2.errors.ErrorCodes.INTERNAL_ERROR
            self.resets.append(event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ends.append(event.stream_id)


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_closed_one_is_not_complete(wrapper: str, tmp_path: Path):
    endpoint = Endpoint()
    with Hypercorn(WRAPPERS[wrapper](endpoint), tmp_path / "socket") as server:
        with server.connected() as client:
            received = by_http_1(client, "/close")

        assert b"something" in received
        assert not received.endswith(b"0\r\n\r\n")
        Deadline(5).until(lambda: endpoint.has_cut == [True, True])


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("path", ["/close", "/full"])
def test_by_http_2_only_its_own_stream_is_reset(wrapper: str, path: str, tmp_path: Path):
    endpoint = Endpoint()
    app = WRAPPERS[wrapper](endpoint)
    with Hypercorn(app, tmp_path / "socket") as server, server.connected() as connected:
        client = Http2(connected)
        other, cut = client.get("/"), client.get(path)

        client.wait_for(lambda: client.resets == [cut])

        assert client.received[cut].startswith(b"something")
        Deadline(5).until(lambda: all(endpoint.has_cut) and endpoint.has_cut)
        client.make_room()
        later = client.get("/")
        client.wait_for(lambda: later in client.received)
        assert client.received[other] == b"something"
        assert client.ends == []


def test_its_stop_is_seen_on_a_unix_socket(redis_url: str, prefix: str, tmp_path: Path):
    """Without a lifespan: nobody but the manager itself sees that a server stops."""
    streams = AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix))

    async def events(request: Any) -> Any:
        return streams.get_stream("room")

    app = Starlette(routes=[Route("/events", events)])
    with Hypercorn(app, tmp_path / "socket") as server, server.connected() as client:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: test\r\n\r\n")
        assert client.recv(4096).startswith(b"HTTP/1.1 200")

        server.stop()

        received = b""
        while piece := client.recv(4096):
            received += piece
        assert not received.endswith(b"0\r\n\r\n")
