"""The servers of the table in docs/deploying.md, beside those of tests/web_servers.py."""

from __future__ import annotations

import dataclasses

from tests.web_servers import ASGI_KINDS, WSGI_KINDS, ServerKind

__all__ = ["OTHERS", "TABLE"]

_LOADED = "application of tests.apps loaded"


def _program(name: str, *more: str) -> ServerKind:
    arguments = [f"tests.apps.on_{name}", "{port}", "{app}", *more]
    return ServerKind(name, arguments, is_asgi=False, is_up=_LOADED)


def _gevent(name: str, worker: str) -> ServerKind:
    like = WSGI_KINDS["gunicorn-gevent"]
    arguments = [worker if part == "gevent" else part for part in like.arguments]
    return dataclasses.replace(like, name=name, arguments=arguments, stops_within=3.5)


OTHERS = [
    ServerKind(
        "granian-wsgi",
        ["granian", "--interface", "wsgi", "--port", "{port}", "--blocking-threads", "4", "{app}"],
        is_asgi=False,
        is_up="Started worker-",
    ),
    ServerKind(
        "hypercorn-wsgi",
        ["hypercorn", "--bind", "127.0.0.1:{port}", "wsgi:{app}"],
        is_asgi=False,
        is_up="Running on",
    ),
    _gevent("gunicorn-pywsgi", "gevent_pywsgi"),
    _gevent("gunicorn-geventwebsocket", "geventwebsocket.gunicorn.workers.GeventWebSocketWorker"),
    ServerKind(
        "flask-run",
        ["flask", "--app", "tests.apps.flask_app", "run", "--port", "{port}"],
        is_asgi=False,
        is_up="Running on",
    ),
    *(_program(name) for name in ("cheroot", "pywsgi", "waitress", "uwsgi")),
]
TABLE = {kind.name: kind for kind in (*WSGI_KINDS.values(), *ASGI_KINDS.values(), *OTHERS)}
