"""What a WSGI request says of its connection, whatever stands between its server and the app."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from streamy_redis.servers import sockets, wsgi

Environ = dict[str, Any]


class Served:
    """A connection of this process with a client, and its request."""

    def __init__(self, listening: socket.socket) -> None:
        self.client = socket.create_connection(listening.getsockname(), 5)
        self.socket, (host, port) = listening.accept()
        self.environ: Environ = {
            "REMOTE_ADDR": host,
            "REMOTE_PORT": str(port),
            "SERVER_PORT": str(listening.getsockname()[1]),
            "SERVER_PROTOCOL": "HTTP/1.1",
        }

    @property
    def is_cut(self) -> bool:
        self.client.settimeout(0.2)
        try:
            return self.client.recv(1) == b""
        except TimeoutError:
            return False


@pytest.fixture
def served() -> Iterator[Served]:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as listening:
        served = Served(listening)
        yield served
        served.client.close()
        served.socket.close()


@contextlib.contextmanager
def _no_free_descriptor() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _behind_proxy_fix(environ: Environ) -> Environ:
    seen: list[Environ] = []
    forwarded = {"HTTP_X_FORWARDED_FOR": "10.1.1.1", "HTTP_X_FORWARDED_PORT": "443"}
    ProxyFix(lambda environ, _: seen.append(environ) or [], x_for=1, x_port=1)(  # type: ignore
        {**environ, **forwarded},
        lambda *_: None,  # type: ignore[arg-type, return-value]
    )
    return seen[0]


def test_proxy_fix_hides_neither_the_port_nor_the_connection(served: Served):
    environ = _behind_proxy_fix(served.environ)
    assert environ["SERVER_PORT"] == "443"

    assert wsgi.port(environ) == int(served.environ["SERVER_PORT"])
    assert wsgi.abort(environ)

    assert served.is_cut


@pytest.mark.parametrize("shows_socket", [True, False])
def test_a_connection_that_others_share_is_left_alone(served: Served, shows_socket: bool):
    served.environ["SERVER_PROTOCOL"] = "HTTP/2"
    if shows_socket:
        served.environ["gunicorn.socket"] = served.socket

    assert not wsgi.abort(served.environ)

    assert not served.is_cut


@pytest.mark.parametrize("shows_socket", [True, False])
def test_without_a_free_descriptor_nothing_is_said_to_be_cut(served: Served, shows_socket: bool):
    if shows_socket:
        served.environ["werkzeug.socket"] = served.socket

    with _no_free_descriptor():
        assert not wsgi.abort(served.environ)

    assert not served.is_cut


def test_what_is_closed_already_is_cut(served: Served):
    served.environ["werkzeug.socket"] = served.socket
    served.socket.close()

    assert wsgi.abort(served.environ)


def test_the_duplicate_of_what_is_no_socket_is_closed_again():
    reading, writing = os.pipe()
    before = os.listdir("/proc/self/fd")

    with pytest.raises(OSError, match="socket"), sockets.duplicate(reading):
        raise AssertionError("it is no socket")

    assert os.listdir("/proc/self/fd") == before
    os.close(reading)
    os.close(writing)
