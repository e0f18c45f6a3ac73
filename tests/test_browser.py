"""The EventSource of the tests does what HTML 9.2.3 says, so that other tests mean something."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from .browser import EventSource, ReadyState
from .deadline import Deadline
from .ports import free_port

OPEN = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n"
CHUNKED = OPEN + b"Transfer-Encoding: chunked\r\n\r\n"


class ScriptedServer:
    """Gives each connection the next answer, and keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answers: list[bytes] = []
        self.connections: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/events?x=1"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            self.connections.append(connection)
            request = b""
            while b"\r\n\r\n" not in request:
                received = connection.recv(65536)
                if not received:
                    return
                request += received
            self.requests.append(request.decode())
            answer = self.answers.pop(0) if self.answers else b"HTTP/1.1 204 No Content\r\n\r\n"
            connection.sendall(answer.removesuffix(b"<end>"))
            if answer.endswith(b"<end>"):
                connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            socket.create_connection(self._listener.getsockname()).close()
        self._thread.join(5)
        self._listener.close()
        for connection in self.connections:
            connection.close()


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    server = ScriptedServer()
    yield server
    server.close()


def test_comes_back_with_its_cursor_after_the_retry_that_it_was_told(server: ScriptedServer):
    server.answers = [
        CHUNKED + chunk(b"retry: 20\nid: 7\ndata: a\n\n") + b"0\r\n\r\n",
        CHUNKED + chunk(b"id: 8\ndata: b\n\nid: 9\ndata: never finished\n"),
    ]
    with EventSource(server.url, retry=5) as browser:
        browser.wait_for(2)

        assert browser.data == ["a", "b"]
        assert browser.ends == ["clean"]
        assert (browser.connects, browser.opens, browser.retries) == (2, 2, [20])
        assert "last-event-id" not in server.requests[0].lower()
        assert "last-event-id: 7\r\n" in server.requests[1].lower()
        assert browser.last_event_id == "8"
        assert browser.state is ReadyState.OPEN


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/event-stream\r\n\r\n<end>",
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\n\r\n<end>",
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\ndata: a\n\n<end>",
    ],
    ids=["204", "400", "503", "html"],
)
def test_gives_up_for_good_on_anything_that_is_no_event_stream(
    server: ScriptedServer, answer: bytes
):
    server.answers = [answer]
    with EventSource(server.url, retry=5) as browser:
        browser.wait_closed()

        assert (browser.connects, browser.opens, browser.events) == (1, 0, [])


def test_comes_back_after_a_response_that_was_cut_off_and_knows_that_it_was(
    server: ScriptedServer,
):
    server.answers = [CHUNKED + chunk(b"id: 1\ndata: a\n\n") + b"<end>"]
    with EventSource(server.url, retry=5) as browser:
        browser.wait_closed()

        assert browser.ends[0].startswith("incomplete")
        assert browser.statuses == [200, 204]


def test_keeps_trying_while_nobody_listens():
    url = f"http://127.0.0.1:{free_port()}/"
    with EventSource(url, retry=5) as browser:
        Deadline(5).until(lambda: browser.connects >= 3)

        assert browser.state is ReadyState.CONNECTING
    assert browser.state is ReadyState.CLOSED


def test_a_cut_connection_is_opened_again(server: ScriptedServer):
    server.answers = [OPEN + b"\r\nid: 1\ndata: a\n\n", OPEN + b"\r\nid: 2\ndata: b\n\n"]
    with EventSource(server.url, retry=5) as browser:
        browser.wait_for(1)
        browser.cut(reset=True)
        browser.wait_for(2)

        assert "last-event-id: 1\r\n" in server.requests[1].lower()


def test_says_what_it_saw_when_a_wait_fails(server: ScriptedServer):
    server.answers = [OPEN + b"\r\ndata: a\n\n"]
    with EventSource(server.url) as browser, pytest.raises(AssertionError, match="OPEN"):
        browser.wait_for(2, timeout=0.3)
