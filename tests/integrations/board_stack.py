"""The apps of integrations/gunicorn-flask, uvicorn-starlette and board, as a user runs them."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx

from streamy_redis import StreamConfig, StreamManager
from tests.browser import EventSource
from tests.child import Child
from tests.event_stream import MessageEvent, events_of
from tests.servers import RedisServer
from tests.web_servers import ROOT, ServerKind, WebServer, http

from .witness import log_key

__all__ = ["Boards", "Everywhere"]

INTEGRATIONS = ROOT / "integrations"
FLASK = ServerKind(
    "gunicorn-flask",
    ["gunicorn", "--bind", "127.0.0.1:{port}", "{app}"],
    is_asgi=False,
    is_up="Booting worker",
)
STARLETTE = ServerKind(
    "uvicorn-starlette",
    ["uvicorn", "--port", "{port}", "--workers", "{workers}", "--no-access-log", "{app}"],
    is_asgi=True,
    is_up="Application startup complete",
)


class Boards:
    """Two gunicorn workers, two uvicorn workers and a job, on a Redis of their own."""

    def __init__(self, redis_server: RedisServer, folder: Path) -> None:
        self.redis_url = redis_server.url
        self.env = env = {
            "STREAMY_REDIS_URL": redis_server.url,
            "BOARD_ALLOW_KILL": "1",
            "BOARD_TICK_INTERVAL": "0.05",
            "BOARD_STEP_INTERVAL": "0.1",
            "WEB_CONCURRENCY": "2",
        }
        self.servers = [
            WebServer(
                kind, "app:app", workers=2, env=env, directory=INTEGRATIONS / kind.name, ready="/"
            ).start()
            for kind in (FLASK, STARLETTE)
        ]
        self.job = Child(
            [sys.executable, "job.py"],
            folder / "job.log",
            env={**env, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
            cwd=INTEGRATIONS / "board",
        )
        self.streams = StreamManager(redis_server.url, config=StreamConfig(prefix="board"))
        self.store = redis_server.connect()
        self._browsers: list[EventSource] = []

    def open(self, count: int, stream_id: str = "board") -> list[EventSource]:
        """That many pages on each of both boards."""
        browsers = [
            EventSource(f"{server.url}/stream/{page}?stream={stream_id}")
            for server in self.servers
            for page in range(1, count + 1)
        ]
        self._browsers += browsers
        for browser in browsers:
            browser.wait_open()
        return browsers

    def log(self, stream_id: str) -> list[MessageEvent]:
        """What a stream's log holds, read with nothing of the package under test."""
        entries = self.store.xrange(log_key(stream_id))
        return [event for _, fields in entries for event in events_of(fields[b"frame"])]

    def lose_history(self, stream_id: str) -> None:
        """Delete it behind everybody's back."""
        assert self.store.delete(log_key(stream_id)) == 1

    @contextlib.contextmanager
    def job_paused(self) -> Iterator[None]:
        """Nothing comes from the job meanwhile."""
        self.job.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.job.signal(signal.SIGCONT)

    def leave(self) -> None:
        """Close every browser of the test."""
        browsers, self._browsers = self._browsers, []
        for browser in browsers:
            browser.close()

    def close(self) -> None:
        self.leave()
        self.streams.close()
        self.store.close()
        self.job.stop()
        for server in self.servers:
            server.close()


class Everywhere:
    """Senders in this process and in the workers of both servers, at once, with a stop.

    Args:
        interval: seconds between two events of each.
    """

    def __init__(self, boards: Boards, stream_id: str, *, interval: float = 0.05) -> None:
        # What was sent: by this process, and through the servers (the text of their JSON).
        self.here: dict[str, str] = {}
        self.through: dict[str, str] = {}
        self.failures: list[str] = []
        self._boards = boards
        self._stream_id = stream_id
        self._interval = interval
        self._stopping = threading.Event()
        senders = [self._here, *(self._through(server) for server in boards.servers)]
        self._threads = [
            threading.Thread(target=self._run, args=(send,), daemon=True) for send in senders
        ]
        for thread in self._threads:
            thread.start()

    def _here(self, number: int) -> None:
        data = f"from the test {number}"
        # Browsers come back sooner than after the one to three seconds that the apps tell them.
        sent = self._boards.streams.send_event(self._stream_id, data, retry=200)
        self.here[sent] = data

    def _through(self, server: WebServer):
        def send(number: int) -> None:
            text = f"through {server.kind} {number}"
            try:
                answer = http.post(
                    f"{server.url}/send?stream={self._stream_id}", content=text, timeout=5
                )
                event_id = answer.json()["id"]
            except (httpx.HTTPError, KeyError, ValueError) as error:
                # Its worker was killed: whether the event was stored nobody knows.
                self.failures.append(repr(error))
                return
            self.through[event_id] = text

        return send

    def _run(self, send) -> None:
        number = 0
        while not self._stopping.wait(self._interval):
            number += 1
            send(number)

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(15)
            assert not thread.is_alive()

    def __enter__(self) -> Everywhere:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()
