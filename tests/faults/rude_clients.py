"""Clients without manners: sockets that ask for a stream and then do what no browser does."""

from __future__ import annotations

import contextlib
import ctypes
import selectors
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path

from tests.deadline import Deadline

__all__ = ["ENOUGH", "BlackHole", "RudeClient", "TricklingClient"]

# Bytes that are in a full socket at the least.
ENOUGH = 1_250_000
# socket(7); Python has no name for it.
_SO_ATTACH_FILTER = 26
# A program of one instruction: keep 0 bytes of each packet that comes (BPF_RET | BPF_K).
_KEEP_NOTHING = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))


class BlackHole:
    """A way to a server on which, from one moment on, nothing moves any more, in no direction.

    Both ends stay open: the server sees no FIN, no RST, and at some point no room for more.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listening.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listening, selectors.EVENT_READ)
        self._sockets: list[socket.socket] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="black hole", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.is_set():
            for key, _ in self._selector.select(0.05):
                if key.fileobj is self._listening:
                    self._accept()
                elif chunk := key.fileobj.recv(4096):  # type: ignore[union-attr]
                    key.data.sendall(chunk)

    def _accept(self) -> None:
        client, _ = self._listening.accept()
        server = socket.socket()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        server.connect(("127.0.0.1", self._target))
        self._sockets += [client, server]
        self._selector.register(client, selectors.EVENT_READ, server)
        self._selector.register(server, selectors.EVENT_READ, client)

    def swallow_everything(self) -> None:
        """From now on."""
        self._stopping.set()
        self._thread.join(5)

    def close(self) -> None:
        self.swallow_everything()
        self._selector.close()
        for each in [self._listening, *self._sockets]:
            each.close()


class RudeClient:
    """Asks for a stream; reads only when told to."""

    def __init__(
        self, url: str, *, receive_buffer: int | None = None, last_event_id: str = ""
    ) -> None:
        parts = urllib.parse.urlsplit(url)
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(10)
        self.socket.connect((parts.hostname, parts.port))
        cursor = f"Last-Event-ID: {last_event_id}\r\n" if last_event_id else ""
        self.socket.sendall(
            f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Accept: text/event-stream\r\n{cursor}\r\n".encode()
        )
        self.received = b""

    def read_until(self, words: bytes) -> RudeClient:
        """Read until the words have come."""
        while words not in self.received:
            chunk = self.socket.recv(4096)
            assert chunk, self.received
            self.received += chunk
        return self

    @property
    def port(self) -> int:
        """Its own, by which a server's end is known."""
        port: int = self.socket.getsockname()[1]
        return port

    @property
    def unread(self) -> int:
        """Bytes in the sockets of both ends that it hasn't read."""
        ours = f":{self.port:04X}"
        count = 0
        for line in Path("/proc/net/tcp").read_text().splitlines():
            if ours not in line:
                continue
            _, here, there, _, queues, *_ = line.split()
            sent, received = (int(queue, 16) for queue in queues.split(":"))
            count += received if here.endswith(ours) else 0
            count += sent if there.endswith(ours) else 0
        return count

    def fill(
        self, send: Callable[[str], object], size: int = 250_000, *, enough: int = ENOUGH
    ) -> RudeClient:
        """Read nothing, and let events be sent until one doesn't fit: that, and no more, is left.

        Args:
            send: what sends an event to it and to nobody else. It should return only when the
                server has written what it can, or a slow server seems to be a full socket.
            enough: bytes that it must hold then, or what it was sent did not come.
        """
        before = self.unread
        for count in range(1, 200):
            send("x" * size)
            # What is not yet acknowledged counts twice for a moment, so all of it is counted.
            if not self._holds(before + count * size):
                assert self.unread >= enough, "it came"
                return self
        raise AssertionError("more fits than was sent")

    def _holds(self, count: int) -> bool:
        """Whether so many bytes come into the sockets, with some time to do so."""
        deadline = Deadline(0.5)
        while self.unread < count:
            if not deadline.left:
                return False
            # Nothing tells when more has come.
            time.sleep(0.005)
        return True

    def reset(self) -> None:
        """Leave with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def vanish(self) -> RudeClient:
        """Be gone without FIN or RST, as a machine that lost its power; until it is closed.

        The kernel drops whatever comes to its socket, and acknowledges nothing.
        """
        program = struct.pack("HP", 1, ctypes.addressof(_KEEP_NOTHING))
        self.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        return self

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.close()


class TricklingClient(RudeClient):
    """Reads 1 KB a second, until it is closed or sent away."""

    def __init__(self, url: str) -> None:
        super().__init__(url, receive_buffer=4096)
        self.is_sent_away = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="trickling", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping.wait(1):
            try:
                if not self.socket.recv(1024):
                    break
            except OSError:
                break
        self.is_sent_away = not self._stopping.is_set()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(5)
        super().close()
