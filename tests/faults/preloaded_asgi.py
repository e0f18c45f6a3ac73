"""The same for Starlette: a send in a loop of its own, before the server's."""

from __future__ import annotations

import asyncio
import json
import os

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.apps.starlette_app import app, streams

from .naive import SharedConnection

__all__ = ["app"]

asyncio.run(streams.send_event("at import", str(os.getpid())))
prefix = json.loads(os.environ["TEST_CONFIG"])["prefix"]
connection = SharedConnection(os.environ["TEST_REDIS_URL"], prefix)


def send_naively(request: Request) -> Response:
    """Sends over the connection that the master had opened."""
    return JSONResponse(connection.send_some(**request.path_params))


app.router.routes.append(Route("/naively/{stream_id}/{name}", send_naively, methods=["POST"]))
