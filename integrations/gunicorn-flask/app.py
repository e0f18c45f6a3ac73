"""The live board on Flask: all that an application does with streamy-redis, in one file."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import asdict
from pathlib import Path

import redis
from flask import Flask, abort, request

from streamy_redis import (
    InvalidEvent,
    RedisUnavailable,
    StreamConfig,
    StreamEnded,
    StreamManager,
    StreamyError,
)

sys.path.append(str(Path(__file__).resolve().parents[1]))

from same_origin import refusal
from workers import is_colleague

PAGE = Path(__file__).resolve().parents[1] / "board" / "page"
URL = os.environ.get("STREAMY_REDIS_URL", "redis://localhost:6379/0")
MAY_KILL = os.environ.get("BOARD_ALLOW_KILL") == "1"
STATUS = {InvalidEvent: 400, StreamEnded: 409, RedisUnavailable: 503}

app = Flask(__name__, static_folder=PAGE, static_url_path="/")
# Its connections have a name, so that the board can cut those, and no others.
store = redis.Redis.from_url(URL, client_name="board")
# The prefix is the board's own: whoever uses it can end no other stream of this Redis.
streams = StreamManager(store, app=app, config=StreamConfig(prefix="board"))


@app.before_request
def refuse_other_sites():
    if reason := refusal(request.method, request.headers):
        return {"error": reason}, 403
    return None


def stream_id() -> str:
    return request.args.get("stream", "board")


def worker() -> str:
    return f"gunicorn-flask.{os.getpid()}"


@app.get("/")
def page():
    return app.send_static_file("index.html")


@app.get("/stream/<int:page>")
def stream(page: int):
    response = streams.get_stream(stream_id(), last_event_id=request.args.get("cursor"), replay=20)
    # EventSource hides response headers from the page; a cookie named after the page it can read.
    response.set_cookie(f"worker-{page}", worker(), samesite="Strict")
    return response


@app.get("/info")
def info():
    return {**asdict(streams.info(stream_id())), "may_kill": MAY_KILL}


@app.post("/send")
def send():
    event = {"by": worker(), "text": request.get_data(as_text=True)}
    return {"id": streams.send_event(stream_id(), event)}


@app.post("/job")
def start_job():
    store.rpush("board:jobs", stream_id())
    return {"queued": True}, 202


@app.post("/end")
def end():
    return {"ended": streams.end_stream(stream_id(), {"by": worker()})}


@app.post("/anew")
def start_anew():
    return {"deleted": streams.delete_stream(stream_id())}


@app.delete("/feeds")
def drop_feeds():
    """Cut the boards' Pub/Sub connections, in Redis: they heal, and no page notices."""
    if not MAY_KILL:
        abort(403)
    feeds = [feed for feed in store.client_list(_type="pubsub") if feed["name"] == "board"]
    return {"dropped": sum(store.client_kill_filter(_id=feed["id"]) for feed in feeds)}


@app.delete("/workers/<int:pid>")
def kill(pid: int):
    """Kill one of this server's workers, as an operator's kill -9 would."""
    # Elsewhere than on gunicorn, whoever started the server has other children.
    is_gunicorn = request.environ.get("SERVER_SOFTWARE", "").startswith("gunicorn/")
    if not (MAY_KILL and is_colleague(pid, master=os.getppid() if is_gunicorn else None)):
        abort(403)
    os.kill(pid, signal.SIGKILL)
    return {"killed": pid}


@app.errorhandler(StreamyError)
def refuse(error: StreamyError):
    return {"error": str(error)}, STATUS.get(type(error), 500)


@app.errorhandler(redis.RedisError)
def redis_away(error: redis.RedisError):
    return {"error": f"Redis: {error}"}, 503
