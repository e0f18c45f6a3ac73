"""sse-starlette with broadcaster."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from broadcaster import Broadcast, Event
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

broadcast = Broadcast(os.environ["BENCH_REDIS_URL"])


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    # Its listener goes back to sleep when it looks before the very first SUBSCRIBE has been sent,
    # and only another channel wakes it: so there are always two.
    async with broadcast, broadcast.subscribe("first"), broadcast.subscribe("second"):
        yield


async def messages(channel: str) -> AsyncIterator[dict[str, str]]:
    async with broadcast.subscribe(channel) as subscriber:
        # Its annotations say that there may be nothing to iterate over.
        async for event in cast(AsyncIterator[Event], subscriber):
            yield {"data": event.message}


async def ping(request: Request) -> Response:
    return PlainTextResponse("pong")


async def events(request: Request) -> Response:
    response: Response = EventSourceResponse(messages(request.path_params["stream_id"]))
    return response


app = Starlette(
    routes=[Route("/ping", ping), Route("/events/{stream_id}", events)], lifespan=lifespan
)
