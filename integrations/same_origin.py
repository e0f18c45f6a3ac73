"""Who may ask an app of this folder for something: its own pages, under a name that it knows.

A page of any site can have the browser of whoever visits it send requests here: to a developer's
own machine, or into their network. Browsers say where such a request comes from. What else they
would believe is a name of that site which is made to point here (DNS rebinding): then the page is
of the same origin, and the name gives it away.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

# Behind a proxy, or on a network: ALLOWED_HOSTS="board.example.com 192.168.1.7".
HOSTS = {"localhost", "127.0.0.1", "[::1]", *os.environ.get("ALLOWED_HOSTS", "").lower().split()}


def refusal(method: str, headers: Mapping[str, str]) -> str | None:
    """Why a request is refused; None if it isn't. What is no browser names no origin."""
    host = headers.get("host", "").lower()
    if re.sub(r":\d+$", "", host) not in HOSTS:
        return "Unknown host. ALLOWED_HOSTS names those that the app may be called."
    if method in ("GET", "HEAD", "OPTIONS"):
        return None
    origin = headers.get("origin")
    is_elsewhere = origin is not None and origin.lower().partition("://")[2] != host
    if is_elsewhere or headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return "Only the app's own pages may do that."
    return None


class SameOriginMiddleware:
    """Refuses in front of an ASGI app."""

    def __init__(self, app):
        self._app = app

    async def __call__(self, scope, receive, send):
        reason = None
        if scope["type"] == "http":
            headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
            reason = refusal(scope["method"], headers)
        if reason is None:
            await self._app(scope, receive, send)
            return
        plain = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": 403, "headers": plain})
        await send({"type": "http.response.body", "body": reason.encode()})
