"""Many clients on one thread: bare sockets and a selector, so that the test is not what is slow."""

from __future__ import annotations

import contextlib
import random
import re
import selectors
import socket
import struct
from collections.abc import Callable, Iterable

from tests.deadline import Deadline

__all__ = ["Crowd", "CrowdClient", "come_and_go"]

_EVENT = re.compile(rb"^(?:event: (.*)\n)?data: (.*)\nid: (\S+)\n\n", re.MULTILINE)
OPENED = b"event: stream-open\ndata: {}\n"


class CrowdClient:
    """One of a crowd: it comes back with its cursor when its response ends, as a browser does.

    Attributes:
        answers: the bytes of each response, its head included.
    """

    def __init__(self, port: int, path: str, last_event_id: str = "") -> None:
        self.answers: list[bytearray] = []
        # How far a response, by its number, was searched for words.
        self._looked: dict[tuple[int, bytes], int] = {}
        self._port = port
        self._path = path
        self._cursor = last_event_id
        self.connect()

    def connect(self) -> None:
        if self.answers:
            self._cursor = (self.events(self.answers[-1]) or [(self._cursor, "")])[-1][0]
        cursor = f"Last-Event-ID: {self._cursor}\r\n" if self._cursor else ""
        self.socket = socket.create_connection(("127.0.0.1", self._port), timeout=10)
        self.socket.sendall(
            f"GET {self._path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{cursor}\r\n".encode()
        )
        self.socket.setblocking(False)
        self.answers.append(bytearray())

    def receive(self) -> bool:
        """Take what is there; False when the response has ended."""
        try:
            chunk = self.socket.recv(1 << 20)
        except BlockingIOError:
            return True
        except OSError:
            chunk = b""
        self.answers[-1] += chunk
        return bool(chunk)

    @property
    def statuses(self) -> list[int]:
        return [int(answer.split(b" ", 2)[1]) if answer else 0 for answer in self.answers]

    def has(self, words: bytes) -> bool:
        """Whether they are in the last response; only what is new since the last look is read."""
        answer = self.answers[-1]
        looked = (len(self.answers), words)
        if answer.find(words, max(0, self._looked.get(looked, 0) - len(words))) >= 0:
            return True
        self._looked[looked] = len(answer)
        return False

    @staticmethod
    def events(answer: bytes) -> list[tuple[str, str]]:
        """Ids and data of one response, the stream's own events not counted."""
        found = _EVENT.findall(_body(bytes(answer)))
        return [(i.decode(), data.decode()) for name, data, i in found if name[:7] != b"stream-"]

    def all_events(self) -> list[tuple[str, str]]:
        return [event for answer in self.answers for event in self.events(answer)]


def _body(answer: bytes) -> bytes:
    """What of a response's body has come, without the chunks' sizes."""
    head, _, rest = answer.partition(b"\r\n\r\n")
    if b"transfer-encoding: chunked" not in head.lower():
        return rest
    body, start = [], 0
    while (end := rest.find(b"\r\n", start)) >= 0:
        size = int(rest[start:end], 16)
        body.append(rest[end + 2 : end + 2 + size])
        start = end + 2 + size + 2
    return b"".join(body)


class Crowd:
    """Clients that are read from whenever something waits to be read."""

    def __init__(self, clients: Iterable[CrowdClient] = ()) -> None:
        self.clients: list[CrowdClient] = []
        self._selector = selectors.DefaultSelector()
        for client in clients:
            self.add(client)

    def add(self, client: CrowdClient) -> None:
        self.clients.append(client)
        self._selector.register(client.socket, selectors.EVENT_READ, client)

    def read_until(self, holds: Callable[[CrowdClient], object], timeout: float) -> None:
        """Read from everybody until that holds for each."""
        waiting = set(self.clients)
        deadline = Deadline(timeout)

        def read() -> bool:
            for key, _ in self._selector.select(0.1):
                client: CrowdClient = key.data
                if not client.receive():
                    self._come_back(client)
                elif client in waiting and holds(client):
                    waiting.discard(client)
            return not waiting

        deadline.until(
            read,
            lambda: [(c.statuses, bytes(c.answers[-1][-200:])) for c in list(waiting)[:5]],
            every=0,
        )

    def _come_back(self, client: CrowdClient) -> None:
        assert client.statuses[-1] in (0, 200), bytes(client.answers[-1][:300])
        self._selector.unregister(client.socket)
        client.socket.close()
        client.connect()
        self._selector.register(client.socket, selectors.EVENT_READ, client)

    @property
    def connects(self) -> int:
        return sum(len(client.answers) for client in self.clients)

    def close(self) -> None:
        self._selector.close()
        for client in self.clients:
            client.socket.close()


def come_and_go(
    port: int, path: str, count: int, rng: random.Random, *, at_once: int = 25, timeout: float = 60
) -> None:
    """So many clients, one after another, a few at once: they see the stream open, and leave."""
    left = count
    with contextlib.closing(Crowd()) as crowd:
        selector = crowd._selector
        deadline = Deadline(timeout)
        while left or selector.get_map():
            assert deadline.left, f"{left} of {count} have not come yet"
            while left and len(selector.get_map()) < at_once:
                client = CrowdClient(port, path)
                selector.register(client.socket, selectors.EVENT_READ, client)
                left -= 1
            for key, _ in selector.select(0.1):
                client = key.data
                assert client.receive(), f"sent away: {client.answers}"
                if not client.has(OPENED):
                    continue
                assert client.statuses == [200]
                selector.unregister(client.socket)
                if rng.random() < 0.5:
                    how = struct.pack("ii", 1, 0)  # RST instead of FIN
                    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, how)
                client.socket.close()
