"""The live board on Starlette: all that an application does with streamy-redis, in one file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path

import redis.asyncio as redis
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from streamy_redis import (
    AsyncStreamManager,
    InvalidEvent,
    RedisUnavailable,
    StreamConfig,
    StreamEnded,
    StreamyError,
)

sys.path.append(str(Path(__file__).resolve().parents[1]))

from same_origin import SameOriginMiddleware
from workers import is_colleague

PAGE = Path(__file__).resolve().parents[1] / "board" / "page"
URL = os.environ.get("STREAMY_REDIS_URL", "redis://localhost:6379/0")
MAY_KILL = os.environ.get("BOARD_ALLOW_KILL") == "1"
STATUS = {InvalidEvent: 400, StreamEnded: 409, RedisUnavailable: 503}

# Its connections have a name, so that the board can cut those, and no others.
store = redis.Redis.from_url(URL, client_name="board")
# The prefix is the board's own: whoever uses it can end no other stream of this Redis.
streams = AsyncStreamManager(store, config=StreamConfig(prefix="board"))


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
    await store.rpush("board:jobs", stream_id(request))
    return JSONResponse({"queued": True}, status_code=202)


async def end(request: Request):
    return JSONResponse({"ended": await streams.end_stream(stream_id(request), {"by": worker()})})


async def start_anew(request: Request):
    return JSONResponse({"deleted": await streams.delete_stream(stream_id(request))})


async def drop_feeds(request: Request):
    """Cut the boards' Pub/Sub connections, in Redis: they heal, and no page notices."""
    if not MAY_KILL:
        raise HTTPException(403)
    feeds = [feed for feed in await store.client_list(_type="pubsub") if feed["name"] == "board"]
    dropped = [await store.client_kill_filter(_id=feed["id"]) for feed in feeds]
    return JSONResponse({"dropped": sum(dropped)})


async def kill(request: Request):
    """Kill one of this server's workers, as an operator's kill -9 would."""
    pid = request.path_params["pid"]
    master = multiprocessing.parent_process()  # None without uvicorn's --workers
    if not (MAY_KILL and is_colleague(pid, master=master and master.pid)):
        raise HTTPException(403)
    os.kill(pid, signal.SIGKILL)
    return JSONResponse({"killed": pid})


async def refuse(request: Request, error: Exception):
    return JSONResponse({"error": str(error)}, status_code=STATUS.get(type(error), 500))


async def redis_away(request: Request, error: Exception):
    return JSONResponse({"error": f"Redis: {error}"}, status_code=503)


@asynccontextmanager
async def lifespan(app: Starlette):
    async with streams.lifespan(app), store:
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
    middleware=[Middleware(SameOriginMiddleware)],
    lifespan=lifespan,
)
