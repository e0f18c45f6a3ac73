"""A TCP proxy in front of Redis that fails in the ways a network, a NAT or a failover does."""

from __future__ import annotations

import contextlib
import enum
import re
import socket
import threading
from collections.abc import Callable

__all__ = ["Fate", "Proxy", "split"]

_HEAD = re.compile(rb"([*$+\-:_,#(=%~>])([^\r\n]*)\r\n")
_ACKNOWLEDGED = b"*3\r\n$9\r\nsubscribe\r\n"
_PUSHED = (b"*3\r\n$7\r\nmessage\r\n", b">3\r\n$7\r\nmessage\r\n")


class Fate(enum.Enum):
    """What becomes of the reply to a marked command, after Redis has carried it out."""

    LOST = "the connection is closed instead"
    SWALLOWED = "nothing comes, and nothing ever will on this connection"
    HALVED = "half of it comes, then the connection is closed"


class Proxy:
    """Forwards to a port on loopback until told otherwise; all switches may be used at any time.

    Attributes:
        commands: how many commands clients have sent, by name.
        swallows_messages: whether Pub/Sub messages are dropped while all else is forwarded.
        hangs_up: whether a connection is closed when a SUBSCRIBE has been acknowledged on it.
        halves_messages: how many Pub/Sub messages to cut in the middle, with the connection.
        refuses_with: an error line that answers every command in Redis's place, or None.
    """

    def __init__(self, target: int) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listening.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.commands: dict[str, int] = {}
        self.swallows_messages = False
        self.hangs_up = False
        self.halves_messages = 0
        self.refuses_with: bytes | None = None
        self._target = target
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._marked: list[tuple[bytes, Fate]] = []
        self._open = threading.Event()
        self._open.set()
        self._thread = threading.Thread(target=self._accept, name="proxy", daemon=True)
        self._thread.start()

    # -- what a test does -------------------------------------------------------------------------

    def cut_silently(self) -> None:
        """Stop forwarding on every connection, without FIN or RST; new ones are as silent."""
        self._open.clear()
        for link in self.links:
            link.is_dead = True

    def let_new_through(self) -> None:
        """End of the cut for new connections; the old ones stay silent, as behind a new NAT."""
        for link in self.links:
            link.is_dead = True
        self._open.set()

    def forget_connections(self) -> None:
        """What a NAT does when it loses its table: old connections go silent, new ones work."""
        self.cut_silently()
        self.let_new_through()

    def switch(self, target: int) -> None:
        """A failover behind one address: from now on it leads to another server."""
        self._target = target
        self.kill_connections()

    def kill_connections(self) -> None:
        """Close every connection."""
        for link in self.links:
            link.close()

    def mark(self, word: bytes, fate: Fate, times: int = 1) -> None:
        """The next commands that contain the word meet this fate."""
        with self._lock:
            self._marked += [(word, fate)] * times

    def forget_marks(self) -> None:
        with self._lock:
            self._marked.clear()

    @property
    def is_open(self) -> bool:
        """Whether new connections are forwarded."""
        return self._open.is_set()

    @property
    def marked(self) -> int:
        """How many marks are left."""
        return len(self._marked)

    @property
    def links(self) -> list[_Link]:
        with self._lock:
            return list(self._links)

    @property
    def descriptors(self) -> int:
        """How many sockets its links have open."""
        return sum(link.descriptors for link in self.links)

    def count(self) -> int:
        """All commands so far."""
        with self._lock:
            return sum(self.commands.values())

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._open.set()
        self._thread.join(5)
        self.kill_connections()

    def __enter__(self) -> Proxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- what its threads do ----------------------------------------------------------------------

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            link = _Link(self, client, is_dead=not self._open.is_set())
            with self._lock:
                self._links.add(link)
            link.start(self._target)

    def _gone(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)

    def _heard(self, command: bytes) -> Fate | None:
        """Counts a command; the fate of its reply, if it is marked."""
        name = command.split(b"\r\n", 3)[2].decode(errors="replace").upper()
        with self._lock:
            self.commands[name] = self.commands.get(name, 0) + 1
            for mark in self._marked:
                if mark[0] in command:
                    self._marked.remove(mark)
                    return mark[1]
        return None


def _at_once(connection: socket.socket) -> None:
    """Redis and redis-py don't wait for acknowledgements either: 40 ms, where those are late."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _Link:
    """One client's connection, and ours to Redis for it."""

    def __init__(self, proxy: Proxy, client: socket.socket, *, is_dead: bool) -> None:
        self.is_dead = is_dead
        self._proxy = proxy
        self._client = client
        self._server: socket.socket | None = None
        self._fate: Fate | None = None

    def start(self, target: int) -> None:
        _at_once(self._client)
        if not self.is_dead:
            try:
                self._server = socket.create_connection(("127.0.0.1", target), timeout=5)
                self._server.settimeout(None)
                _at_once(self._server)
            except OSError:
                self.close()
                self._client.close()
                return
            threading.Thread(
                target=self._pump, args=(self._server, self._down), name="proxy down", daemon=True
            ).start()
        threading.Thread(
            target=self._pump, args=(self._client, self._up), name="proxy up", daemon=True
        ).start()

    @property
    def descriptors(self) -> int:
        ends = (self._client, self._server)
        return sum(end is not None and end.fileno() >= 0 for end in ends)

    def close(self) -> None:
        for end in (self._client, self._server):
            if end is not None:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self._proxy._gone(self)

    def _pump(self, source: socket.socket, forward: Callable[[list[bytes]], bool]) -> None:
        buffer = b""
        try:
            while chunk := source.recv(65536):
                whole, buffer = split(buffer + chunk)
                # A dead link still reads, so that the sender's kernel sees no difference at first.
                if whole and not self.is_dead and not forward(whole):
                    break
        except OSError:
            pass
        finally:
            # The end of one side is the end of both, unless nobody may hear of it.
            if not self.is_dead or source is self._client:
                self.close()
            source.close()

    def _up(self, commands: list[bytes]) -> bool:
        proxy = self._proxy
        for command in commands:
            fate = proxy._heard(command)
            if proxy.refuses_with is not None:
                self._client.sendall(b"-" + proxy.refuses_with + b"\r\n")
                continue
            if fate is not None:
                self._fate = fate
            assert self._server is not None
            self._server.sendall(command)
        return True

    def _down(self, replies: list[bytes]) -> bool:
        if self._proxy.swallows_messages:
            replies = [reply for reply in replies if not reply.startswith(_PUSHED)]
        if self._proxy.halves_messages and any(r.startswith(_PUSHED) for r in replies):
            self._proxy.halves_messages -= 1
            self._fate = Fate.HALVED
        fate, self._fate = self._fate, None
        reply = b"".join(replies)
        if fate is Fate.LOST:
            return False
        if fate is Fate.SWALLOWED:
            self.is_dead = True
            return True
        if fate is Fate.HALVED:
            self._client.sendall(reply[: len(reply) // 2])
            return False
        self._client.sendall(reply)
        return not (self._proxy.hangs_up and any(r.startswith(_ACKNOWLEDGED) for r in replies))


def split(data: bytes) -> tuple[list[bytes], bytes]:
    """The whole commands or replies (RESP) at the start of some bytes, and the rest."""
    whole = []
    start = 0
    while (end := _end(data, start)) is not None:
        whole.append(data[start:end])
        start = end
    return whole, data[start:]


def _end(data: bytes, start: int) -> int | None:
    """Where the value that starts there ends; None if it isn't whole."""
    head = _HEAD.match(data, start)
    if head is None:
        assert b"\r\n" not in data[start:], data[start : start + 50]
        return None
    kind, rest = head[1], head[2]
    end: int | None = head.end()
    if kind in b"$=" and int(rest) >= 0:
        end = head.end() + int(rest) + 2
        return end if end <= len(data) else None
    if kind in b"*~>%":
        for _ in range(int(rest) * (2 if kind == b"%" else 1)):
            end = _end(data, end or 0)
            if end is None:
                return None
    return end
