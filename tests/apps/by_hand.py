"""A stream twice: by a manager, and by hand, as people write it. A page counts what each loses."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import redis.asyncio as redis
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse
from starlette.routing import Route

from streamy_redis import AsyncStreamManager, StreamConfig

URL = os.environ["TEST_REDIS_URL"]
# Browsers come back equally soon to both.
RETRY = 1.0

streams = AsyncStreamManager(URL, config=StreamConfig(retry_interval=(RETRY, RETRY)))


async def ours(request: Request) -> Response:
    return streams.get_stream("numbers")


async def by_hand(request: Request) -> Response:
    async def events() -> AsyncIterator[str]:
        store = redis.from_url(URL, decode_responses=True)
        async with store, store.pubsub() as pubsub:
            await pubsub.subscribe("by-hand")
            yield f"retry: {RETRY * 1000:.0f}\n\n"
            async for message in pubsub.listen():
                if message["type"] == "message":
                    yield f"data: {message['data']}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def page(request: Request) -> Response:
    return FileResponse(Path(__file__).with_suffix(".html"))


async def ping(request: Request) -> Response:
    return Response("pong")


app = Starlette(
    routes=[
        Route("/ping", ping),
        Route("/", page),
        Route("/ours", ours),
        Route("/by-hand", by_hand),
    ],
    lifespan=streams.lifespan,
)
