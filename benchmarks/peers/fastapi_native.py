"""FastAPI's own server-sent events, with a pubsub a client."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

import redis.asyncio
from fastapi import FastAPI
from fastapi.sse import EventSourceResponse, ServerSentEvent

# A connection a client: more than the pool allows by itself.
client = redis.asyncio.Redis.from_url(
    os.environ["BENCH_REDIS_URL"], decode_responses=True, max_connections=20_000
)
app = FastAPI()


@app.get("/ping")
async def ping() -> str:
    return "pong"


@app.get("/events/{stream_id}", response_class=EventSourceResponse)
async def events(stream_id: str) -> AsyncIterator[ServerSentEvent]:
    async with client.pubsub() as pubsub:
        await pubsub.subscribe(stream_id)
        async for message in pubsub.listen():
            if message["type"] == "message":
                yield ServerSentEvent(raw_data=message["data"])
