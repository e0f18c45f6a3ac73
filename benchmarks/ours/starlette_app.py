"""streamy-redis on Starlette."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from streamy_redis import AsyncStreamManager

streams = AsyncStreamManager()


async def ping(request: Request) -> Response:
    return PlainTextResponse("pong")


async def events(request: Request) -> Response:
    return streams.get_stream(request.path_params["stream_id"])


app = Starlette(
    routes=[Route("/ping", ping), Route("/events/{stream_id}", events)], lifespan=streams.lifespan
)
