"""FastAPI with `def` and `async def` endpoints, without our lifespan and under its own."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from streamy_redis import AsyncStreamManager, StreamConfig

streams = AsyncStreamManager(
    os.environ["TEST_REDIS_URL"],
    config=StreamConfig(**json.loads(os.environ.get("TEST_CONFIG", "{}"))),
)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """The application's own lifespan, around ours."""
    async with streams.lifespan(app):
        yield {"state": "of the application"}


app = FastAPI(lifespan=lifespan)


@app.get("/ping")
def ping() -> str:
    return "pong"


@app.api_route("/def/{stream_id}", methods=["GET", "HEAD"])
def events_from_def(stream_id: str, replay: int = 0) -> Response:
    return streams.get_stream(stream_id, replay=replay)


@app.api_route("/async/{stream_id}", methods=["GET", "HEAD"])
async def events_from_async_def(stream_id: str, replay: int = 0) -> Response:
    return streams.get_stream(stream_id, replay=replay)


@app.get("/events/{stream_id}")
async def events(request: Request, stream_id: str) -> Response:
    assert request.state.state == "of the application"
    return streams.get_stream(stream_id)


@app.post("/send/{stream_id}")
async def send(request: Request, stream_id: str) -> dict[str, str]:
    return {"id": await streams.send_event(stream_id, (await request.body()).decode())}
