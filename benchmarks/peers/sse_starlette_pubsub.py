"""sse-starlette with a pubsub a client."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import redis.asyncio
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

# A connection a client: more than the pool allows by itself.
client = redis.asyncio.Redis.from_url(
    os.environ["BENCH_REDIS_URL"], decode_responses=True, max_connections=20_000
)


async def messages(channel: str) -> AsyncIterator[dict[str, str]]:
    async with client.pubsub() as pubsub:
        await pubsub.subscribe(channel)
        async for message in pubsub.listen():
            if message["type"] == "message":
                yield {"data": message["data"]}


async def ping(request: Request) -> Response:
    return PlainTextResponse("pong")


async def events(request: Request) -> Response:
    response: Response = EventSourceResponse(messages(request.path_params["stream_id"]))
    return response


app = Starlette(routes=[Route("/ping", ping), Route("/events/{stream_id}", events)])
