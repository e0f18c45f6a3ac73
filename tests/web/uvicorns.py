"""uvicorn as a program runs it itself: in a thread, on a free port."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn

from tests.deadline import Deadline

__all__ = ["RunningUvicorn", "asked", "running"]


class RunningUvicorn:
    """A uvicorn.Server in a thread of this process."""

    def __init__(self, app: Any, **config: Any) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.socket.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(app, log_config=None, **config))
        self._thread = threading.Thread(target=self.server.run, args=([self.socket],), daemon=True)

    def start(self) -> RunningUvicorn:
        self._thread.start()
        Deadline(10).until(lambda: self.server.started, "uvicorn is up")
        return self

    def is_gone(self, within: float) -> bool:
        self._thread.join(within)
        return not self._thread.is_alive()

    def close(self) -> None:
        self.server.should_exit = self.server.force_exit = True
        assert self.is_gone(10)


@contextlib.contextmanager
def running(app: Any, **config: Any) -> Iterator[RunningUvicorn]:
    server = RunningUvicorn(app, **config).start()
    try:
        yield server
    finally:
        server.close()


def asked(port: int, path: str = "/", *fields: str) -> socket.socket:
    """A connection on which a path was asked for."""
    client = socket.create_connection(("127.0.0.1", port), 10)
    head = [f"GET {path} HTTP/1.1", "Host: localhost", *fields, "", ""]
    client.sendall("\r\n".join(head).encode())
    return client
