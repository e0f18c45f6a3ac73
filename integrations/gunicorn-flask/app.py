"""The live board on Flask: all that an application does with streamy-redis, in one file."""

from __future__ import annotations

import os
import signal
from dataclasses import asdict
from pathlib import Path

import redis
from flask import Flask, abort, request

from streamy_redis import InvalidEvent, RedisUnavailable, StreamEnded, StreamManager, StreamyError

PAGE = Path(__file__).resolve().parent.parent / "board" / "page"
MAY_KILL = os.environ.get("BOARD_ALLOW_KILL") == "1"
STATUS = {InvalidEvent: 400, StreamEnded: 409, RedisUnavailable: 503}

app = Flask(__name__, static_folder=PAGE, static_url_path="/")
streams = StreamManager(app=app)  # finds Redis by the variable STREAMY_REDIS_URL
queue = redis.Redis.from_url(os.environ.get("STREAMY_REDIS_URL", "redis://localhost:6379/0"))


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
    queue.rpush("board:jobs", stream_id())
    return {"queued": True}, 202


@app.post("/end")
def end():
    return {"ended": streams.end_stream(stream_id(), {"by": worker()})}


@app.post("/anew")
def start_anew():
    return {"deleted": streams.delete_stream(stream_id())}


@app.delete("/feeds")
def drop_feeds():
    """Cut the Pub/Sub connection of every process, in Redis: they heal, and no page notices."""
    if not MAY_KILL:
        abort(403)
    return {"dropped": queue.client_kill_filter(_type="pubsub")}


@app.delete("/workers/<int:pid>")
def kill(pid: int):
    """Kill one of this server's workers, as an operator's kill -9 would."""
    try:
        ours = pid > 1 and os.getpgid(pid) == os.getpgrp() and pid != os.getppid()
    except (ProcessLookupError, OverflowError):
        abort(404)
    if not (MAY_KILL and ours):
        abort(403)
    os.kill(pid, signal.SIGKILL)
    return {"killed": pid}


@app.errorhandler(StreamyError)
def refuse(error: StreamyError):
    return {"error": str(error)}, STATUS.get(type(error), 500)


@app.errorhandler(redis.RedisError)
def redis_away(error: redis.RedisError):
    return {"error": f"Redis: {error}"}, 503
