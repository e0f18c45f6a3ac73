"""The least that Starlette allows: each event is sent to every response from one loop.

No task, no history, no bounds: one slow client would hold up all. What is left is what uvicorn
and Starlette hold for an open response, and do for one send.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import redis.asyncio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

client = redis.asyncio.Redis.from_url(os.environ["BENCH_REDIS_URL"])
sends: dict[bytes, dict[Send, None]] = defaultdict(dict)


class Waiting(Response):
    def __init__(self, channel: str) -> None:
        self.channel = channel.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
        sends[self.channel][send] = None
        while (await receive())["type"] != "http.disconnect":
            pass
        del sends[self.channel][send]


async def hear() -> None:
    async with client.pubsub() as pubsub:
        await pubsub.psubscribe("*")
        async for message in pubsub.listen():
            if message["type"] == "pmessage":
                body = b"data: %b\n\n" % message["data"]
                for send in list(sends[message["channel"]]):
                    await send({"type": "http.response.body", "body": body, "more_body": True})


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    hearing = asyncio.create_task(hear())
    yield
    hearing.cancel()
    with suppress(asyncio.CancelledError):
        await hearing


async def ping(request: Request) -> Response:
    return PlainTextResponse("pong")


async def events(request: Request) -> Response:
    return Waiting(request.path_params["stream_id"])


app = Starlette(
    routes=[Route("/ping", ping), Route("/events/{stream_id}", events)], lifespan=lifespan
)
