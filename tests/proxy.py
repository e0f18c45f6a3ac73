"""TCP proxies: one in front of Redis that loses replies, one in front of a web server that cuts."""

from __future__ import annotations

import contextlib
import math
import queue
import re
import socket
import threading
import time
from dataclasses import dataclass

from streamy_redis.servers.sockets import shut_down

__all__ = [
    "CuttingProxy",
    "FarProxy",
    "Link",
    "LossyProxy",
    "Proxy",
    "ResettingProxy",
    "SlowProxy",
    "StreamRequest",
]


@dataclass(eq=False)
class StreamRequest:
    """A request for an event stream: what it asked for, and what became of it.

    Attributes:
        status: None until it is answered.
        keep_alives: comments that its response brought so far.
    """

    target: str
    last_event_id: str
    status: int | None = None
    keep_alives: int = 0


@dataclass(eq=False)
class Link:
    """A client's connection and the one to the server behind it.

    Attributes:
        is_losing: the reply that is under way has to be lost.
        request: the one that it carries now, None before the first.
        cut_behind: it ends behind what matches this.
    """

    client: socket.socket
    server: socket.socket
    is_losing: bool = False
    request: StreamRequest | None = None
    cut_behind: re.Pattern[bytes] | None = None

    def shut(self) -> None:
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class Proxy:
    """Forwards bytes both ways; one connection a pair of threads."""

    def __init__(self, port: int) -> None:
        self._target = ("127.0.0.1", port)
        self._lock = threading.Lock()
        self._links: list[Link] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def _asked(self, link: Link, data: bytes) -> None:
        """Told of what a client sends, before it is forwarded."""

    def _passes(self, link: Link, data: bytes) -> bytes:
        """How much of a reply is forwarded; behind less than all of it the connection is closed."""
        return data

    def _start(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                link = Link(client, socket.create_connection(self._target))
                self._links.append(link)
                self._start(self._pump_requests, link)
                self._start(self._pump_replies, link)

    def _pump_requests(self, link: Link) -> None:
        with contextlib.suppress(OSError):
            while data := link.client.recv(65536):
                with self._lock:
                    self._asked(link, data)
                link.server.sendall(data)
        link.shut()

    def _pump_replies(self, link: Link) -> None:
        with contextlib.suppress(OSError):
            while data := link.server.recv(65536):
                with self._lock:
                    passed = self._passes(link, data)
                link.client.sendall(passed)
                if len(passed) < len(data):
                    break
        self._end(link)

    def _end(self, link: Link) -> None:
        """The server has closed its connection."""
        link.shut()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for link in self._links:
            link.shut()
        for thread in self._threads:
            thread.join(5)
        for link in self._links:
            link.client.close()
            link.server.close()

    def __enter__(self):
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class ResettingProxy(Proxy):
    """In front of a web server: makes resets of what the server closes."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.url = f"http://127.0.0.1:{self.port}"

    def _end(self, link: Link) -> None:
        with contextlib.suppress(OSError):
            shut_down(link.client, abruptly=True)
        link.shut()


class LossyProxy(Proxy):
    """In front of Redis.

    `lose_reply_to(word)`: the next request that holds the word reaches Redis, its reply is
    swallowed and the connection closed: the client can't know whether it was carried out.
    `replace(old, new)`: what the server says from now on reads otherwise.
    """

    def __init__(self, port: int) -> None:
        self.lost = 0
        self._armed: list[bytes] = []
        self._replaced: dict[bytes, bytes] = {}
        super().__init__(port)
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def lose_reply_to(self, word: bytes) -> None:
        with self._lock:
            self._armed.append(word)

    def replace(self, old: bytes, new: bytes) -> None:
        assert len(old) == len(new), "RESP says how long it is"
        with self._lock:
            self._replaced[old] = new

    def _asked(self, link: Link, data: bytes) -> None:
        for word in [word for word in self._armed if word in data]:
            self._armed.remove(word)
            link.is_losing = True

    def _passes(self, link: Link, data: bytes) -> bytes:
        if link.is_losing:
            self.lost += 1
            return b""
        for old, new in self._replaced.items():
            data = data.replace(old, new)
        return data


_HEAD = re.compile(rb"\w+ (\S+) HTTP/1\.1\r\n(.*\r\n)\r\n", re.DOTALL)
_LAST_EVENT_ID = re.compile(rb"^last-event-id: *([^\r]*)", re.MULTILINE | re.IGNORECASE)
_IN_THE_ADDRESS = re.compile(rb"[?&]lastEventId=([^&]*)$")
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_KEEP_ALIVE = re.compile(rb"^:$", re.MULTILINE)
_ID = re.compile(rb"^id: .*\n", re.MULTILINE)
_DATA = re.compile(rb"^data: ?[^\r\n]", re.MULTILINE)


class CuttingProxy(Proxy):
    """In front of a web server: keeps the requests for event streams, and cuts their connections.

    On the loopback interface the head of a request comes in one piece, and so does a short event.

    Attributes:
        requests: all requests for event streams, oldest first.
        is_shut: connections are closed as soon as they are made.
        is_busy: the next request is answered 503.
    """

    def __init__(self, port: int) -> None:
        self.requests: list[StreamRequest] = []
        self.is_shut = False
        self.is_busy = False
        super().__init__(port)
        self.url = f"http://127.0.0.1:{self.port}"

    def requests_for(self, target: str) -> list[StreamRequest]:
        """Those whose target holds this."""
        return [request for request in self.requests if target in request.target]

    def cut(self) -> None:
        """Close every connection now."""
        for link in self._links:
            link.shut()

    def cut_inside_the_next_event(self) -> None:
        """Every stream that is open ends behind the first byte of the next event's data."""
        self._cut_behind(_DATA)

    def cut_before_the_end_of_the_next_event(self) -> None:
        """Every stream that is open ends before the last byte of the next event: the blank line."""
        self._cut_behind(_ID)

    def _cut_behind(self, pattern: re.Pattern[bytes]) -> None:
        with self._lock:
            for link in self._links:
                link.cut_behind = pattern if link.request in self.requests else None

    def _asked(self, link: Link, data: bytes) -> None:
        head = _HEAD.match(data)
        if self.is_shut:
            link.shut()
        elif head is not None:
            cursor = _LAST_EVENT_ID.search(head[2]) or _IN_THE_ADDRESS.search(head[1])
            link.request = StreamRequest(head[1].decode(), cursor[1].decode() if cursor else "")
            self._note(link.request, head[2])
            if self.is_busy:
                self._refuse(link, link.request)

    def _refuse(self, link: Link, request: StreamRequest) -> None:
        self.is_busy, request.status = False, 503
        link.client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        link.shut()

    def _note(self, request: StreamRequest, head: bytes) -> None:
        if b"text/event-stream" in head and request not in self.requests:
            self.requests.append(request)

    def _passes(self, link: Link, data: bytes) -> bytes:
        request = link.request
        if request is None:
            return data
        if request.status is None and (answer := _STATUS.match(data)):
            request.status = int(answer[1])
            # Some ask in a body that their API describes.
            self._note(request, data.partition(b"\r\n\r\n")[0])
        request.keep_alives += len(_KEEP_ALIVE.findall(data))
        cut = link.cut_behind.search(data) if link.cut_behind else None
        return data[: cut.end()] if cut else data


class FarProxy(Proxy):
    """In front of a Redis that is far away: each piece takes half a round trip, either way.

    How much is under way at the same time is not limited.
    """

    def __init__(self, port: int, round_trip: float) -> None:
        self._half = round_trip / 2
        super().__init__(port)
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def _pump_requests(self, link: Link) -> None:
        self._pump_late(link, link.client, link.server)

    def _pump_replies(self, link: Link) -> None:
        self._pump_late(link, link.server, link.client)

    def _pump_late(self, link: Link, source: socket.socket, target: socket.socket) -> None:
        pieces: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        self._start(self._deliver, pieces, target)
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                pieces.put((time.monotonic() + self._half, data))
        pieces.put((time.monotonic() + self._half, b""))

    def _deliver(self, pieces: queue.SimpleQueue[tuple[float, bytes]], target: socket.socket):
        with contextlib.suppress(OSError):
            while True:
                due, data = pieces.get()
                time.sleep(max(0.0, due - time.monotonic()))
                if not data:
                    target.shutdown(socket.SHUT_RDWR)
                    return
                target.sendall(data)


class SlowProxy(Proxy):
    """In front of Redis: every connection carries so many bytes a second to it, and back."""

    def __init__(self, port: int, *, up: float, down: float) -> None:
        self._up, self._down = up, down
        super().__init__(port)
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def _pump_requests(self, link: Link) -> None:
        self._trickle(link, link.client, link.server, self._up)

    def _pump_replies(self, link: Link) -> None:
        self._trickle(link, link.server, link.client, self._down)

    def _trickle(
        self, link: Link, source: socket.socket, target: socket.socket, rate: float
    ) -> None:
        with contextlib.suppress(OSError):
            # As much as passes within a hundredth of a second.
            while data := source.recv(65536 if math.isinf(rate) else max(1, int(rate / 100))):
                time.sleep(len(data) / rate)
                target.sendall(data)
        link.shut()
