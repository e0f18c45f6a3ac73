"""streamy-redis on Flask."""

from __future__ import annotations

from flask import Flask, Response

from streamy_redis import StreamManager

app = Flask(__name__)
streams = StreamManager(app=app)


@app.get("/ping")
def ping() -> str:
    return "pong"


@app.get("/events/<stream_id>")
def events(stream_id: str) -> Response:
    return streams.get_stream(stream_id)
