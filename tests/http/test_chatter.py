"""What a client says behind its request for a stream, where the stream has taken the connection.

Nobody parses it: it is read, so that a client that leaves is noticed, and dropped.
"""

from __future__ import annotations

import contextlib
import socket
import urllib.parse
from collections.abc import Callable, Iterator

import pytest

from tests.sites import Site
from tests.web_servers import WSGI_KINDS


@pytest.fixture(params=list(WSGI_KINDS))
def site(request: pytest.FixtureRequest, shared_sites: Callable[[str], Site]) -> Iterator[Site]:
    site = shared_sites(request.param)
    yield site
    site.leave()


class Talker:
    """A client that has asked for a stream, and has been told that it is open."""

    def __init__(self, site: Site, request: bytes) -> None:
        self.socket = socket.create_connection(("127.0.0.1", site.server.port), 10)
        self.socket.sendall(request)
        self.received = b""
        self.read_until(b"stream-open")

    def read_until(self, words: bytes) -> None:
        while words not in self.received:
            piece = self.socket.recv(65536)
            assert piece, self.received
            self.received += piece

    def read_to_the_end(self) -> None:
        with contextlib.suppress(ConnectionResetError):
            while piece := self.socket.recv(65536):
                self.received += piece

    def close(self) -> None:
        self.socket.close()


def request(line: str, stream_id: str, body: bytes | None = None) -> bytes:
    method, path = line.split()
    length = "" if body is None else f"Content-Length: {len(body)}\r\n"
    head = f"{method} {path}{urllib.parse.quote(stream_id)} HTTP/1.1\r\nHost: localhost\r\n{length}"
    return f"{head}\r\n".encode() + (body or b"")


@pytest.mark.parametrize("when", ["in one piece with it", "later"])
def test_a_request_behind_a_stream_s_is_never_executed(site: Site, room: str, when: str):
    asked, smuggled = request("GET /events/", room), request("POST /send/", f"{room} sent", b"x")
    pieces = [asked, smuggled] if when == "later" else [asked + smuggled, b""]
    with contextlib.closing(Talker(site, pieces[0])) as client:
        client.socket.sendall(pieces[1])
        site.streams.send_event(room, "heard")
        client.read_until(b"data: heard\n")

        site.streams.end_stream(room)

        client.read_to_the_end()
        assert client.received.endswith(b"\r\n0\r\n\r\n"), "one response, which is complete"
        assert client.received.count(b"HTTP/1.1") == 1
        assert not site.streams.info(f"{room} sent").exists


def test_a_client_that_talks_without_end_is_cut(site: Site, room: str):
    other = site.browser(room).wait_open()
    with (
        contextlib.closing(Talker(site, request("GET /events/", room))) as client,
        pytest.raises(ConnectionError),
    ):
        client.socket.sendall(b"x" * 16_000_000)

    site.streams.send_event(room, "heard")
    assert other.wait_for(1).connects == 1


def test_a_body_that_no_view_reads_is_no_talk(site: Site, room: str):
    asked = request("POST /events/", room, b"x" * 1_000_000)
    with contextlib.closing(Talker(site, asked[:1000])) as client:
        client.socket.sendall(asked[1000:])

        site.streams.send_event(room, "heard")

        client.read_until(b"data: heard\n")
