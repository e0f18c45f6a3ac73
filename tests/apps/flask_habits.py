"""A Flask application that does to its responses what applications do.

/events/<id>?habit=…    what is done to the response of a stream; nothing, by default
/page?habit=…           the same done to an ordinary page
/stats                  what the manager counts
"""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flask import Flask, Response, request

from streamy_redis import StreamConfig, StreamManager

logging.basicConfig(stream=sys.stdout, format="%(name)s %(levelname)s %(message)s")
logging.getLogger("streamy_redis").setLevel(logging.INFO)


class House(Response):
    """A class of its own for all that it answers."""


class Site(Flask):
    response_class = House


app = Site(__name__)
streams = StreamManager(
    os.environ["TEST_REDIS_URL"],
    app=app,
    config=StreamConfig(**json.loads(os.environ.get("TEST_CONFIG", "{}"))),
)
print("application of tests.apps loaded", flush=True)


@app.get("/ping")
def ping() -> str:
    return "pong"


@app.get("/page")
def page() -> str:
    return "a page"


@app.get("/events/<stream_id>")
def events(stream_id: str) -> Response:
    return streams.get_stream(stream_id)


@app.get("/stats")
def stats() -> dict[str, Any]:
    gc.collect()
    counted = streams.stats()
    return {"open": counted.subscribers, "refused": counted.refused, "ended": dict(counted.ended)}


@app.after_request
def act(response: Response) -> Response:
    habit = request.args.get("habit")
    if habit == "header":
        response.headers[request.args["name"]] = request.args["value"]
    elif habit == "wrap":
        response.response = loud(response.iter_encoded())
    elif habit == "make anew":
        return House(loud(response.iter_encoded()), headers=response.headers)
    return response


def loud(body: Iterable[bytes]) -> Iterator[bytes]:
    for piece in body:
        yield piece.replace(b"hello", b"HELLO")


def around(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """What is done further out, by middlewares."""
    habit = environ["QUERY_STRING"].removeprefix("habit=")
    if habit == "instead":
        inner(environ, lambda *args: None)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"something else"]
    if habit == "limit":
        return limited(environ, start_response)
    if habit.startswith("late&"):
        return start_late(environ, start_response)
    return inner(environ, start_response)


def start_late(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """All of the body first, then the head: as those do that count or replace."""
    environ["QUERY_STRING"] = environ["QUERY_STRING"].replace("late&", "habit=header&")
    started: list[Any] = []
    body = inner(environ, lambda *args: started.append(args))
    pieces = list(body)
    start_response(*started[0])
    return pieces


def limited(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """A time limit for each request, as many sites on gevent have."""
    import gevent

    try:
        with gevent.Timeout(0.1):
            return inner(environ, start_response)
    except gevent.Timeout:
        start_response("504 Gateway Timeout", [("Content-Length", "0")])
        return []


inner = app.wsgi_app
app.wsgi_app = around  # type: ignore[method-assign]
