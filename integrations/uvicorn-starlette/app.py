"""The live board on Starlette: all that an application does with streamy-redis, in one file."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import redis.asyncio as redis
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from streamy_redis import (
    AsyncStreamManager,
    InvalidEvent,
    RedisUnavailable,
    StreamEnded,
    StreamyError,
)

PAGE = Path(__file__).resolve().parent.parent / "board" / "page"
MAY_KILL = os.environ.get("BOARD_ALLOW_KILL") == "1"
STATUS = {InvalidEvent: 400, StreamEnded: 409, RedisUnavailable: 503}

streams = AsyncStreamManager()  # finds Redis by the variable STREAMY_REDIS_URL
queue = redis.Redis.from_url(os.environ.get("STREAMY_REDIS_URL", "redis://localhost:6379/0"))


def stream_id(request: Request) -> str:
    return request.query_params.get("stream", "board")


def worker() -> str:
    return f"uvicorn-starlette.{os.getpid()}"


async def stream(request: Request):
    cursor = request.query_params.get("cursor")
    response = streams.get_stream(stream_id(request), last_event_id=cursor, replay=20)
    # EventSource hides response headers from the page; a cookie named after the page it can read.
    response.set_cookie(f"worker-{request.path_params['page']}", worker(), samesite="strict")
    return response


async def info(request: Request):
    found = await streams.info(stream_id(request))
    return JSONResponse({**asdict(found), "may_kill": MAY_KILL})


async def send(request: Request):
    event = {"by": worker(), "text": (await request.body()).decode(errors="replace")}
    return JSONResponse({"id": await streams.send_event(stream_id(request), event)})


async def start_job(request: Request):
    await queue.rpush("board:jobs", stream_id(request))
    return JSONResponse({"queued": True}, status_code=202)


async def end(request: Request):
    return JSONResponse({"ended": await streams.end_stream(stream_id(request), {"by": worker()})})


async def start_anew(request: Request):
    return JSONResponse({"deleted": await streams.delete_stream(stream_id(request))})


async def drop_feeds(request: Request):
    """Cut the Pub/Sub connection of every process, in Redis: they heal, and no page notices."""
    if not MAY_KILL:
        raise HTTPException(403)
    return JSONResponse({"dropped": await queue.client_kill_filter(_type="pubsub")})


async def kill(request: Request):
    """Kill one of this server's workers, as an operator's kill -9 would."""
    pid = request.path_params["pid"]
    try:
        ours = pid > 1 and os.getpgid(pid) == os.getpgrp() and pid != os.getppid()
    except (ProcessLookupError, OverflowError):
        raise HTTPException(404) from None
    if not (MAY_KILL and ours):
        raise HTTPException(403)
    os.kill(pid, signal.SIGKILL)
    return JSONResponse({"killed": pid})


async def refuse(request: Request, error: Exception):
    return JSONResponse({"error": str(error)}, status_code=STATUS.get(type(error), 500))


async def redis_away(request: Request, error: Exception):
    return JSONResponse({"error": f"Redis: {error}"}, status_code=503)


@asynccontextmanager
async def lifespan(app: Starlette):
    async with streams.lifespan(app), queue:
        yield


app = Starlette(
    routes=[
        Route("/stream/{page:int}", stream),
        Route("/info", info),
        Route("/send", send, methods=["POST"]),
        Route("/job", start_job, methods=["POST"]),
        Route("/end", end, methods=["POST"]),
        Route("/anew", start_anew, methods=["POST"]),
        Route("/feeds", drop_feeds, methods=["DELETE"]),
        Route("/workers/{pid:int}", kill, methods=["DELETE"]),
        Mount("/", StaticFiles(directory=PAGE, html=True)),
    ],
    exception_handlers={StreamyError: refuse, redis.RedisError: redis_away},
    lifespan=lifespan,
)
