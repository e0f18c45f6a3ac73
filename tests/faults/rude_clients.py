"""Clients without manners: sockets that ask for a stream and then do what no browser does."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import urllib.parse

__all__ = ["RudeClient", "TricklingClient"]

_TCP_REPAIR = 19


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

    def reset(self) -> None:
        """Leave with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def vanish(self) -> bool:
        """Be gone without FIN or RST, as a machine that lost its power; False if not allowed to.

        A socket that is closed in repair mode (tcp(7), CAP_NET_ADMIN) says nothing.
        """
        try:
            self.socket.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
        except OSError:
            return False
        self.socket.close()
        return True

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
