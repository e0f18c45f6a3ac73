"""Who takes part, and how each is started with one process that serves."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .peers import nchan
from .routes import RouteKind

__all__ = ["CONTESTANTS", "OURS", "ROOT", "Contestant", "newer_python"]

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server with its application.

    Attributes:
        name: as in `--only` and in the floors.
        label: as in the tables.
        command: from a port to the command line; for nchan the bench makes it.
        route: how its events are sent.
        path: of a stream, with {} for its name.
        has_master: whether a child of the process serves, and not the process itself.
        is_silent: whether it answers nothing before the first event.
        idle_clients: as many as the idle work opens; fewer where each takes milliseconds.
        absence: why it can't take part, asked before it is started.
    """

    name: str
    label: str
    route: RouteKind
    command: Callable[[int], list[str]] | None = None
    path: str = "/events/{}"
    has_master: bool = False
    is_silent: bool = False
    idle_clients: int = 4000
    absence: Callable[[], str | None] = lambda: None

    @property
    def is_ours(self) -> bool:
        return self.route == "streamy"


def newer_python() -> Path:
    """The interpreter of 3.12 or newer that scripts/bench found, or where it would be."""
    return ROOT / ".venv-bench-newer" / "bin" / "python"


def _no_newer_python() -> str | None:
    return None if newer_python().exists() else "no Python 3.12 or newer found"


def _uvicorn(app: str, python: str | Path = sys.executable) -> Callable[[int], list[str]]:
    return lambda port: [
        *(str(python), "-m", "uvicorn", "--host", "127.0.0.1", "--port", str(port)),
        *("--loop", "uvloop", "--http", "httptools", "--no-access-log"),
        *("--log-level", "warning", "--backlog", "4096", app),
    ]


def _gunicorn(app: str, *worker: str) -> Callable[[int], list[str]]:
    return lambda port: [
        *(sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--workers", "1"),
        *("--no-control-socket", "--log-level", "warning", "-k", *worker, app),
    ]


def _ours_on_flask(name: str, label: str, *worker: str) -> Contestant:
    return Contestant(
        name,
        label,
        "streamy",
        _gunicorn("benchmarks.ours.flask_app:app", *worker),
        has_master=True,
    )


_STARLETTE = "benchmarks.ours.starlette_app:app"

OURS = (
    Contestant("ours-starlette", "Starlette on uvicorn", "streamy", _uvicorn(_STARLETTE)),
    Contestant(
        "ours-starlette-newer",
        "Starlette on uvicorn, Python 3.12+",
        "streamy",
        _uvicorn(_STARLETTE, newer_python()),
        absence=_no_newer_python,
    ),
    _ours_on_flask("ours-flask-sync", "Flask on gunicorn sync", "sync"),
    _ours_on_flask("ours-flask-gthread", "Flask on gunicorn gthread", "gthread", "--threads", "8"),
    _ours_on_flask("ours-flask-gevent", "Flask on gunicorn gevent", "gevent"),
)
PEERS = (
    Contestant(
        "sse-starlette",
        "sse-starlette, a pubsub a client",
        "plain",
        _uvicorn("benchmarks.peers.sse_starlette_pubsub:app"),
        idle_clients=1000,
    ),
    Contestant(
        "broadcaster",
        "sse-starlette, broadcaster",
        "plain",
        _uvicorn("benchmarks.peers.sse_starlette_broadcaster:app"),
        idle_clients=1000,
    ),
    Contestant(
        "fastapi",
        "FastAPI native, a pubsub a client",
        "plain",
        _uvicorn("benchmarks.peers.fastapi_native:app"),
        idle_clients=1000,
    ),
    Contestant(
        "flask-sse-gthread",
        "flask-sse on gthread",
        "flask-sse",
        # A thread a client, and one for the question whether the server is up.
        _gunicorn("benchmarks.peers.flask_sse_app:app", "gthread", "--threads", "510"),
        path="/events?channel={}",
        has_master=True,
        is_silent=True,
        idle_clients=500,
    ),
    Contestant(
        "flask-sse-gevent",
        "flask-sse on gevent",
        "flask-sse",
        _gunicorn("benchmarks.peers.flask_sse_app:app", "gevent", "--worker-connections", "5000"),
        path="/events?channel={}",
        has_master=True,
        is_silent=True,
        idle_clients=1000,
    ),
    Contestant("nchan", "nchan (C, nginx)", "nchan", has_master=True, absence=nchan.absence),
    Contestant(
        "bare",
        "the bare limit in Python",
        "frame",
        lambda port: [sys.executable, "-m", "benchmarks.peers.bare", str(port)],
    ),
    Contestant(
        "bare-starlette",
        "the least that Starlette allows",
        "plain",
        _uvicorn("benchmarks.peers.bare_starlette:app"),
    ),
)
CONTESTANTS = {contestant.name: contestant for contestant in (*PEERS, *OURS)}
