"""Real web servers for the tests: one way to start each that people use."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gunicorn.config
import httpx
import psutil

from .child import Child, new_folder
from .deadline import Deadline
from .ports import free_port
from .stopwatch import Stopwatch

__all__ = [
    "ASGI_KINDS",
    "GTHREAD_THREADS",
    "KINDS",
    "UVICORN_S_WORKER",
    "WSGI_KINDS",
    "ServerKind",
    "WebServer",
    "environment",
    "http",
]

ROOT = Path(__file__).parent.parent
GTHREAD_THREADS = 40

# One for all: a client of its own for each request loads all certificates each time. It keeps no
# connection open, since a server that stops may wait for it.
http = httpx.Client(verify=False, timeout=10, limits=httpx.Limits(max_keepalive_connections=0))


@dataclass(frozen=True)
class ServerKind:
    """How a server is started, and what may be expected of it.

    Attributes:
        arguments: the command line, with {app}, {port} and {workers} to be filled in.
        is_up: what each worker's log says when it is ready, by line.
        stops_within: seconds from SIGTERM to the end of the process with streams open. Workers
            of gunicorn's gevent and asgi kinds look at their own flag once a second, with or
            without streams: two looks, and the time that it takes to exit.
    """

    name: str
    arguments: Sequence[str]
    is_asgi: bool
    is_up: str
    stops_within: float = 1.0

    def __str__(self) -> str:
        return self.name


def _gunicorn(worker: str, *more: str) -> list[str]:
    # Newer ones listen on one socket a user, which parallel servers would fight for.
    has_control_socket = hasattr(gunicorn.config, "ControlSocketDisable")
    return [
        *("gunicorn", "--bind", "127.0.0.1:{port}", "--workers", "{workers}", "-k", worker),
        *(["--no-control-socket"] if has_control_socket else []),
        *more,
        "{app}",
    ]


_FLASK_UP = "application of tests.apps loaded"
_UVICORN_UP = "Application startup complete"

WSGI_KINDS = {
    kind.name: kind
    for kind in (
        ServerKind("gunicorn-sync", _gunicorn("sync"), is_asgi=False, is_up=_FLASK_UP),
        ServerKind(
            "gunicorn-gthread",
            _gunicorn("gthread", "--threads", str(GTHREAD_THREADS)),
            is_asgi=False,
            is_up=_FLASK_UP,
        ),
        ServerKind(
            "gunicorn-gevent", _gunicorn("gevent"), is_asgi=False, is_up=_FLASK_UP, stops_within=2.5
        ),
    )
}
ASGI_KINDS = {
    kind.name: kind
    for kind in (
        ServerKind(
            "uvicorn",
            ["uvicorn", "--port", "{port}", "--workers", "{workers}", "{app}"],
            is_asgi=True,
            is_up=_UVICORN_UP,
        ),
        ServerKind(
            "gunicorn-asgi",
            _gunicorn("asgi"),
            is_asgi=True,
            is_up="ASGI server listening",
            stops_within=2.5,
        ),
        ServerKind(
            "gunicorn-uvicorn",
            _gunicorn("uvicorn_worker.UvicornWorker"),
            is_asgi=True,
            is_up=_UVICORN_UP,
        ),
        ServerKind(
            "granian",
            [
                *("granian", "--interface", "asgi", "--port", "{port}"),
                *("--workers", "{workers}", "{app}"),
            ],
            is_asgi=True,
            is_up="Started worker-",
        ),
        ServerKind(
            "hypercorn",
            ["hypercorn", "--bind", "127.0.0.1:{port}", "--workers", "{workers}", "{app}"],
            is_asgi=True,
            is_up="Running on",
            stops_within=2.5,
        ),
    )
}
KINDS = {**WSGI_KINDS, **ASGI_KINDS}
# Arguments that make gunicorn-uvicorn use the worker that uvicorn still brings along, deprecated.
# Only how it stops is its own: as a kind it would be served everything again.
UVICORN_S_WORKER = ("-k", "uvicorn.workers.UvicornWorker")


class WebServer:
    """An application of tests/apps (or of `directory`) on a real server, on a free port."""

    def __init__(
        self,
        kind: ServerKind,
        app: str,
        *,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
        directory: Path = ROOT,
        ready: str = "/ping",
        arguments: Sequence[str] = (),
    ) -> None:
        self.kind = kind
        self.worker_count = workers
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = new_folder("web-server") / "log"
        filled = [part.format(app=app, port=self.port, workers=workers) for part in kind.arguments]
        # The application comes last, where a server wants it.
        self._command = [sys.executable, "-m", *filled[:-1], *arguments, filled[-1]]
        self._env = {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **(env or {})}
        self._directory = directory
        self._ready = ready
        self._child: Child | None = None
        # Seconds that it waited for a processor while it was terminated.
        self.held_up = 0.0

    @property
    def child(self) -> Child:
        assert self._child is not None
        return self._child

    @property
    def output(self) -> str:
        return self.child.output

    def start(self) -> WebServer:
        self._child = Child(self._command, self._log, env=self._env, cwd=self._directory)
        try:
            Deadline(20).until(self.answers, lambda: f"{self.kind} is up\n{self.output[-4000:]}")
        except BaseException:
            self.close()
            raise
        return self

    def answers(self) -> bool:
        assert self.child.running, self.output[-4000:]
        if self.output.count(self.kind.is_up) < self.worker_count:
            return False
        try:
            return http.get(f"{self.url}{self._ready}", timeout=2).status_code == 200
        except httpx.HTTPError:
            return False

    def workers(self) -> list[psutil.Process]:
        """The processes that serve: children of the master, or the server itself."""
        found = []
        for process in self.child.children():
            with contextlib.suppress(psutil.Error):
                if "resource_tracker" not in " ".join(process.cmdline()):
                    found.append(process)
        return found or [psutil.Process(self.child.pid)]

    def stream_url(self, path: str, stream_id: str, **query: Any) -> str:
        """The address of a stream: /events/<id> and the like."""
        quoted = urllib.parse.quote(stream_id, safe="")
        # An EventSource has headers and last_event_id too: hence another name for ours.
        encoded = urllib.parse.urlencode({k.removeprefix("query_"): v for k, v in query.items()})
        return f"{self.url}/{path}/{quoted}" + (f"?{encoded}" if encoded else "")

    def get_json(self, path: str) -> Any:
        return http.get(f"{self.url}{path}").raise_for_status().json()

    def connections_to(self, port: int) -> int:
        """How many sockets the server's processes have towards a client's port."""
        count = 0
        for process in [psutil.Process(self.child.pid), *self.child.children()]:
            with contextlib.suppress(psutil.Error):
                count += sum(
                    bool(c.raddr) and c.raddr.port == port and c.status == "ESTABLISHED"
                    for c in process.net_connections("tcp")
                )
        return count

    def terminate(self, within: float) -> float:
        """SIGTERM; how long it took, as Stopwatch says. AssertionError when it takes longer."""
        watch = Stopwatch([self.child.pid, *(process.pid for process in self.child.children())])
        self.child.signal(signal.SIGTERM)
        Deadline(within).until(
            lambda: watch.look() and not self.child.running, lambda: self.output[-4000:]
        )
        self.held_up = watch.waited
        return watch.seconds

    def close(self) -> None:
        if self._child is not None:
            self._child.stop(grace=0.0)

    def __enter__(self) -> WebServer:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def environment(
    redis_url: str, *, debug: str = "", middleware: str = "", **config: Any
) -> dict[str, str]:
    """What tests/apps read; they print what the logger `debug` says at DEBUG."""
    return {
        "TEST_MIDDLEWARE": middleware,
        "TEST_REDIS_URL": redis_url,
        "TEST_CONFIG": json.dumps(config),
        "TEST_DEBUG": debug,
    }
