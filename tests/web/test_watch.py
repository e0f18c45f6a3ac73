"""Servers that a program starts and stops itself, without a signal, several of them in turn."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from flask import Flask
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.routing import Route
from werkzeug.serving import make_server

from streamy_redis import AsyncStreamManager, StreamConfig, StreamManager
from tests.deadline import Deadline
from tests.faults.rude_clients import RudeClient
from tests.web.uvicorns import asked, running

pytestmark = pytest.mark.alone


@pytest.fixture
def app(redis_url: str, prefix: str) -> Starlette:
    """Without a lifespan: nobody but the manager itself sees that a server stops."""
    streams = AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix))

    async def events(request: Any) -> Any:
        return streams.get_stream("room")

    return Starlette(routes=[Route("/events", events)])


def _reader(port: int) -> Any:
    client = asked(port, "/events")
    received = b""
    while b"stream-open" not in received:
        received += client.recv(4096)
    return client


def _stop(server: Any) -> None:
    server.server.should_exit = True


def _reach_the_limit(server: Any) -> None:
    server.server.limit_max_requests = 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_one_in_a_thread_waits_for_no_client_that_does_not_read(
    app: Starlette, redis_url: str, prefix: str, loop: Any
):
    """Behind a middleware that hides its connection."""
    wrapped = BaseHTTPMiddleware(app, lambda request, call_next: call_next(request))
    streams = StreamManager(redis_url, config=StreamConfig(prefix=prefix))
    with running(wrapped, loop=loop) as server, streams:
        stuck = RudeClient(f"http://127.0.0.1:{server.port}/events", receive_buffer=4096)
        with contextlib.closing(stuck.read_until(b"stream-open")):
            stuck.fill(lambda data: streams.send_event("room", data))
            _stop(server)

            assert server.is_gone(1.5)


@pytest.mark.parametrize("stop", [_stop, _reach_the_limit])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_one_in_a_thread_is_gone_within_a_second(app: Starlette, loop: Any, stop: Any):
    with running(app, loop=loop) as server, _reader(server.port):
        stop(server)

        assert server.is_gone(1)


def test_one_after_the_other_serves_with_the_same_manager(app: Starlette):
    for _ in range(3):
        with running(app) as server, _reader(server.port) as client:
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                client.recv(4096)
            _stop(server)
            assert server.is_gone(1)


@contextlib.contextmanager
def _live_server(streams: StreamManager) -> Iterator[int]:
    """As a fixture of an application's tests; yields its port."""
    app = Flask(__name__)
    app.add_url_rule("/events", view_func=lambda: streams.get_stream("room"))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def _read_to_the_end(client: Any) -> None:
    while client.recv(4096):
        pass


def _is_ended(client: Any) -> bool:
    client.settimeout(2)
    try:
        _read_to_the_end(client)
    except ConnectionError:
        pass
    return True


def test_a_live_server_of_tests_takes_only_its_own_streams_along(redis_url: str, prefix: str):
    with StreamManager(redis_url, config=StreamConfig(prefix=prefix)) as streams:
        with streams.subscribe("room", timeout=5) as reader:
            with _live_server(streams) as port:
                client = _reader(port)
            with client:
                assert _is_ended(client)
            streams.send_event("room", 1)
            assert next(reader).json() == 1

        with streams.subscribe("room", timeout=5) as later:
            streams.send_event("room", 2)
            assert next(later).json() == 2
        with _live_server(streams) as port, _reader(port) as client:
            client.settimeout(0.5)
            with pytest.raises(TimeoutError):
                _read_to_the_end(client)


class _TwoInOneLoop:
    """Two servers of one application, as a public one and one for the staff."""

    def __init__(self, app: Starlette) -> None:
        self.servers = [
            uvicorn.Server(uvicorn.Config(app, port=0, log_config=None)) for _ in range(2)
        ]
        self.thread = threading.Thread(target=asyncio.run, args=(self._serve(),), daemon=True)
        self.tasks: list[asyncio.Task[None]] = []

    async def _serve(self) -> None:
        self.tasks = [asyncio.create_task(server.serve()) for server in self.servers]
        await asyncio.wait(self.tasks)

    def ports(self) -> list[int]:
        return [server.servers[0].sockets[0].getsockname()[1] for server in self.servers]


@pytest.fixture
def two(app: Starlette) -> Iterator[_TwoInOneLoop]:
    two = _TwoInOneLoop(app)
    two.thread.start()
    Deadline(10).until(lambda: all(server.started for server in two.servers))
    yield two
    for server in two.servers:
        server.should_exit = server.force_exit = True
    two.thread.join(10)


def test_of_two_in_one_loop_only_the_one_that_stops_loses_its_readers(two: _TwoInOneLoop):
    with contextlib.ExitStack() as stack:
        ports = two.ports()
        staying, _ = (stack.enter_context(_reader(port)) for port in ports)

        two.servers[1].should_exit = True
        start = time.monotonic()
        Deadline(2).until(two.tasks[1].done)

        assert time.monotonic() - start < 1
        staying.settimeout(0.5)
        with pytest.raises(TimeoutError):
            staying.recv(4096)
        stack.enter_context(_reader(ports[0]))
