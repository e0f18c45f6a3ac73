"""The Flask application, as it is run in earnest: inside of middlewares, with a log at INFO.

/seen      what the middlewares saw of the responses to a path
/slowly-closed   streams whose close hooks wait a moment, and then print a line
/fork      a process forked off, which holds a copy of all that its worker has open
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from flask import Response, request
from werkzeug.middleware.proxy_fix import ProxyFix

from tests.apps.flask_app import app, streams

__all__ = ["app", "streams"]

logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
logging.getLogger("streamy_redis").setLevel(logging.INFO)

# By path: each response as the middleware around it saw it.
seen: dict[str, list[dict[str, Any]]] = {}


class Metrics:
    """Counts what a response brings, and hands the iterable's close() on."""

    def __init__(self, wsgi: Callable[..., Iterable[bytes]]) -> None:
        self._wsgi = wsgi

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        record: dict[str, Any] = {"bytes": 0, "ended": 0, "closed": 0}
        seen.setdefault(environ["PATH_INFO"], []).append(record)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            record["status"] = status
            record["headers"] = [[name.lower(), value] for name, value in headers]
            return start_response(status, headers, exc_info)

        return _Counted(self._wsgi(environ, start), record)


class _Counted:
    def __init__(self, body: Iterable[bytes], record: dict[str, Any]) -> None:
        self._body = body
        self._record = record

    def __iter__(self) -> Iterator[bytes]:
        for chunk in self._body:
            self._record["bytes"] += len(chunk)
            yield chunk
        self._record["ended"] += 1

    def close(self) -> None:
        self._record["closed"] += 1
        if hasattr(self._body, "close"):
            self._body.close()


class Tracker:
    """What error trackers do: watch over the call, the iteration and the close."""

    def __init__(self, wsgi: Callable[..., Iterable[bytes]]) -> None:
        self._wsgi = wsgi

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            return _Tracked(self._wsgi(environ, start_response))
        except Exception:
            _tell()
            raise


class _Tracked:
    def __init__(self, body: Iterable[bytes]) -> None:
        self._body = body

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._body
        except Exception:
            _tell()
            raise

    def close(self) -> None:
        try:
            if hasattr(self._body, "close"):
                self._body.close()
        except Exception:
            _tell()
            raise


def _tell() -> None:
    logging.getLogger("tracker").exception("tracked an error")


app.wsgi_app = ProxyFix(Tracker(Metrics(app.wsgi_app)))  # type: ignore[method-assign]


@app.after_request
def allow_other_origins(response: Response) -> Response:
    response.headers["Access-Control-Allow-Origin"] = "https://example.org"
    response.set_cookie("second", "cookie")
    return response


@app.get("/seen")
def what_was_seen() -> list[dict[str, Any]]:
    return seen.get(request.args["path"], [])


@app.get("/slowly-closed/<stream_id>")
def slowly_closed(stream_id: str) -> Response:
    response = streams.get_stream(stream_id)

    def close() -> None:
        time.sleep(0.05)
        # In one write, since several run at a time.
        os.write(1, b"closed slowly\n")

    response.call_on_close(close)
    return response


@app.get("/fork/<stream_id>")
def fork(stream_id: str) -> dict[str, int]:
    """A child that stays until it can read what is written to a pipe: then it uses its manager."""
    parent = os.getppid()
    pid = os.fork()
    if pid:
        return {"pid": pid}
    # gunicorn's gevent worker, whose greenlets were forked as well, looks once a second whether its
    # parent is still there, and ends the child.
    os.getppid = lambda: parent
    if request.args["pipe"] == "none":
        time.sleep(60)
        os._exit(0)
    try:
        Path(request.args["pipe"]).read_text()
        with streams.subscribe(stream_id) as events:
            streams.send_event(stream_id, "of the child")
            heard = next(iter(events)).data
        streams.send_event(stream_id, f"the child heard what is {heard}")
        # Stays on, as a job does that takes its time.
        Path(request.args["pipe"]).read_text()
    except Exception:
        _tell()
    finally:
        os._exit(0)
