"""The same application as flask_app, for Starlette."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from streamy_redis import AsyncStreamManager, StreamConfig

streams = AsyncStreamManager(
    os.environ["TEST_REDIS_URL"],
    config=StreamConfig(**json.loads(os.environ.get("TEST_CONFIG", "{}"))),
)
closed: list[str] = []


async def ping(request: Request) -> Response:
    return PlainTextResponse("pong")


async def worker(request: Request) -> Response:
    return JSONResponse(
        {
            "pid": os.getpid(),
            "subscribers": streams.stats().subscribers,
            "ended": streams.stats().ended,
            "threads": threading.active_count(),
            "fds": len(os.listdir("/proc/self/fd")),
            "tasks": len(asyncio.all_tasks()),
            "closed": closed,
        }
    )


async def events(request: Request) -> Response:
    return streams.get_stream(request.path_params["stream_id"], **options(request))


async def events_of_nothing(request: Request) -> Response:
    return streams.get_stream("")


async def run_of_langgraph(request: Request) -> Response:
    run_id = request.path_params["run_id"]
    return streams.get_stream(run_id, headers={"Location": request.url.path}, replay="all")


async def answer_for_openai(request: Request) -> Response:
    """The model's name is that of the stream."""
    return streams.get_stream((await request.json())["model"], replay="all")


async def decorated(request: Request) -> Response:
    stream_id = request.path_params["stream_id"]
    response = streams.get_stream(stream_id, headers={"X-Ours": "1"})
    response.set_cookie("seen", "yes")
    response.headers["X-Late"] = "2"
    response.background = BackgroundTask(closed.append, stream_id)
    return response


async def send(request: Request) -> Response:
    data = (await request.body()).decode()
    return JSONResponse({"id": await streams.send_event(request.path_params["stream_id"], data)})


def options(request: Request) -> dict[str, Any]:
    query = request.query_params
    given: dict[str, Any] = {}
    if "event_name" in query:
        given["event_name"] = query["event_name"]
    if "keep_alive_interval" in query:
        given["keep_alive_interval"] = float(query["keep_alive_interval"])
    if "last_event_id" in query:
        given["last_event_id"] = query["last_event_id"]
    if "replay" in query:
        given["replay"] = query["replay"] if query["replay"] == "all" else int(query["replay"])
    if "headers" in query:
        given["headers"] = json.loads(query["headers"])
    return given


async def passed_on(request: Request, call_next: Any) -> Response:
    return await call_next(request)


def middleware(name: str) -> list[Middleware]:
    """What stands around everything: nothing without a name."""
    if name == "OpenTelemetry":
        # Not everywhere where this application runs.
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
        from opentelemetry.sdk.trace import TracerProvider

        return [Middleware(OpenTelemetryMiddleware, tracer_provider=TracerProvider())]
    return [Middleware(BaseHTTPMiddleware, dispatch=passed_on)] if name else []


app = Starlette(
    middleware=middleware(os.environ.get("TEST_MIDDLEWARE", "")),
    routes=[
        Route("/ping", ping),
        Route("/worker", worker),
        Route("/events/", events_of_nothing),
        Route("/events/{stream_id:path}", events, methods=["GET", "POST"]),
        Route("/threads/{thread_id}/runs/{run_id}/stream", run_of_langgraph),
        Route("/v1/chat/completions", answer_for_openai, methods=["POST"]),
        Route("/decorated/{stream_id}", decorated),
        Route("/send/{stream_id:path}", send, methods=["POST"]),
    ],
    lifespan=streams.lifespan,
)
