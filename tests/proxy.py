"""A TCP proxy in front of Redis that loses what a test tells it to lose."""

from __future__ import annotations

import contextlib
import socket
import threading

__all__ = ["LossyProxy"]


class LossyProxy:
    """Forwards bytes both ways; one connection a pair of threads.

    `lose_reply_to(word)`: the next request that holds the word reaches Redis, its reply is
    swallowed and the connection closed: the client can't know whether it was carried out.
    `replace(old, new)`: what the server says from now on reads otherwise.
    """

    def __init__(self, port: int) -> None:
        self.lost = 0
        self._target = ("127.0.0.1", port)
        self._armed: list[bytes] = []
        self._replaced: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._start(self._accept)

    def lose_reply_to(self, word: bytes) -> None:
        with self._lock:
            self._armed.append(word)

    def replace(self, old: bytes, new: bytes) -> None:
        assert len(old) == len(new), "RESP says how long it is"
        self._replaced[old] = new

    def _start(self, target, *args) -> None:
        thread = threading.Thread(target=target, args=args, name="proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                # Set while the reply that is under way has to be lost.
                losing = threading.Event()
                self._start(self._pump_requests, client, server, losing)
                self._start(self._pump_replies, client, server, losing)

    def _pump_requests(
        self, client: socket.socket, server: socket.socket, losing: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                with self._lock:
                    for word in [word for word in self._armed if word in data]:
                        self._armed.remove(word)
                        losing.set()
                server.sendall(data)
        self._close(client, server)

    def _pump_replies(
        self, client: socket.socket, server: socket.socket, losing: threading.Event
    ) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                if losing.is_set():
                    self.lost += 1
                    break
                for old, new in self._replaced.items():
                    data = data.replace(old, new)
                client.sendall(data)
        self._close(client, server)

    def _close(self, *sockets: socket.socket) -> None:
        for each in sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._close(*self._sockets)
        for thread in self._threads:
            thread.join(5)
        for each in self._sockets:
            each.close()

    def __enter__(self) -> LossyProxy:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
