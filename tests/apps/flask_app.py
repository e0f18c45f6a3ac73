"""A Flask application with every feature of a response that get_stream has to get along with."""

from __future__ import annotations

import gc
import json
import logging
import os
import sys
import threading
from typing import Any

from flask import Flask, Response, request

from streamy_redis import StreamConfig, StreamManager

app = Flask(__name__)
streams = StreamManager(
    os.environ["TEST_REDIS_URL"],
    app=app,
    config=StreamConfig(**json.loads(os.environ.get("TEST_CONFIG", "{}"))),
)
_log = logging.getLogger("tests.apps.flask_app")
closed: list[str] = []
barriers: dict[int, threading.Barrier] = {}
print("application of tests.apps loaded", flush=True)


@app.get("/ping")
def ping() -> str:
    return "pong"


@app.get("/worker")
def worker() -> dict[str, Any]:
    """What this process holds."""
    return {
        "pid": os.getpid(),
        "subscribers": streams.stats().subscribers,
        "threads": threading.active_count(),
        "fds": len(os.listdir("/proc/self/fd")),
        "greenlets": greenlets(),
        "responses": sum(issubclass(type(thing), Response) for thing in gc.get_objects()),
        "closed": closed,
    }


def greenlets() -> int:
    """How many there are that run, under gevent; 0 elsewhere."""
    if "gevent" not in sys.modules:
        return 0
    from greenlet import greenlet

    gc.collect()
    return sum(isinstance(thing, greenlet) and not thing.dead for thing in gc.get_objects())


@app.get("/together/<int:count>")
def together(count: int) -> str:
    """Answered when as many requests are under way: each has a thread then."""
    barriers.setdefault(count, threading.Barrier(count)).wait(10)
    return "together"


@app.route("/events/<path:stream_id>", methods=["GET", "POST"])
def events(stream_id: str) -> Response:
    return streams.get_stream(stream_id, **options())


@app.get("/events/")
def events_of_nothing() -> Response:
    return streams.get_stream("")


@app.get("/threads/<thread_id>/runs/<run_id>/stream")
def run_of_langgraph(thread_id: str, run_id: str) -> Response:
    return streams.get_stream(run_id, headers={"Location": request.path}, replay="all")


@app.post("/v1/chat/completions")
def answer_for_openai() -> Response:
    """The model's name is that of the stream."""
    return streams.get_stream(request.get_json()["model"], replay="all")


@app.get("/decorated/<stream_id>")
def decorated(stream_id: str) -> Response:
    """Cookies, headers of the response object, and a callback for its end."""
    response = streams.get_stream(stream_id, headers={"X-Ours": "1"})
    response.set_cookie("seen", "yes")
    response.headers["X-Late"] = "2"

    def close() -> None:
        closed.append(stream_id)
        _log.debug("closed %r", stream_id)

    response.call_on_close(close)
    return response


@app.post("/send/<path:stream_id>")
def send(stream_id: str) -> dict[str, str]:
    return {"id": streams.send_event(stream_id, request.get_data(as_text=True))}


@app.after_request
def mark(response: Response) -> Response:
    response.headers["X-After-Request"] = "ran"
    return response


def options() -> dict[str, Any]:
    """get_stream's own arguments, from the query."""
    given: dict[str, Any] = {}
    if "event_name" in request.args:
        given["event_name"] = request.args["event_name"]
    if "keep_alive_interval" in request.args:
        given["keep_alive_interval"] = float(request.args["keep_alive_interval"])
    if "last_event_id" in request.args:
        given["last_event_id"] = request.args["last_event_id"]
    if "replay" in request.args:
        replay = request.args["replay"]
        given["replay"] = replay if replay == "all" else int(replay)
    if "headers" in request.args:
        given["headers"] = json.loads(request.args["headers"])
    return given
