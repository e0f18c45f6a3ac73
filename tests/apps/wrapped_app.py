"""starlette_app behind middlewares that end in its place what it returns from unfinished."""

from __future__ import annotations

from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.apps.starlette_app import app as starlette_app


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


app = BaseHTTPMiddleware(starlette_app, pass_on)
twice = BaseHTTPMiddleware(app, pass_on)


async def hidden(scope: Scope, receive: Receive, send: Send) -> None:
    """As behind a proxy whose headers are believed: the connection's own address is gone."""
    if scope["type"] == "http":
        scope["client"] = ("10.1.1.1", 0)
    await twice(scope, receive, send)
