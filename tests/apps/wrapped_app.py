"""starlette_app behind a middleware that ends in its place what it returns from unfinished."""

from __future__ import annotations

from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from tests.apps.starlette_app import app as starlette_app


async def pass_on(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


app = BaseHTTPMiddleware(starlette_app, pass_on)
