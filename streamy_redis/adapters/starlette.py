"""A Starlette response whose body is a stream.

The response is made in the endpoint and decided when it is served: only then is a subscriber
registered. receive() is awaited all the time, since servers tell of a disconnect nowhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any, Protocol

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import Receive, Scope, Send

from ..core.headers import retry_after
from ..core.publication import Position
from ..core.request import cursor_of
from ..exceptions import InvalidEvent
from ..servers.connection import Connection
from .frameworks import not_for_wsgi

__all__ = ["OpenStream", "StreamResponse", "refuse_stream_id"]


class OpenStream(Protocol):
    """What a response needs of a stream."""

    def add(self, connection: Connection) -> bool: ...
    async def wait_open(self) -> None: ...
    @property
    def has_nothing_to_say(self) -> bool: ...
    async def serve(self, receive: Receive, send: Send, connection: Connection) -> None: ...
    def close(self) -> None: ...


def refuse_stream_id(error: InvalidEvent) -> Response:
    """400, with the rule that the stream id breaks."""
    return PlainTextResponse(f"{error}\n", HTTPStatus.BAD_REQUEST)


class StreamResponse(Response):
    """Serves a stream to one client. Headers, cookies and background are those of any response.

    Args:
        new_stream: makes the stream, given the request's cursor.
        headers: its fields.
    """

    def __init__(
        self,
        new_stream: Callable[[Position | None], OpenStream],
        headers: Sequence[tuple[str, str]],
    ) -> None:
        self.status_code = HTTPStatus.OK
        self.background = None
        # There is no body to take a length from, so Response.__init__ is not for us.
        self.raw_headers = [(name.encode("latin-1"), v.encode("latin-1")) for name, v in headers]
        self._new_stream = new_stream

    def __call__(
        self, scope: Scope, receive: Receive, send: Send | None = None
    ) -> Coroutine[Any, Any, None]:
        if send is None:
            # An environ and start_response.
            raise not_for_wsgi()
        return self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Servers of ASGI 2.4 or newer say so that the client has left; there is no one to tell.
        with contextlib.suppress(OSError):
            if scope["method"] == "HEAD":
                await self._finish(send, HTTPStatus.OK, self.raw_headers)
            else:
                await self._serve(scope, receive, send)
        if self.background is not None:
            await self.background()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        stream = self._new_stream(_cursor_of(scope))
        connection = Connection(scope, receive, send)
        try:
            if not stream.add(connection):
                fields = [retry_after(), *connection.closing_fields()]
                more = [(name.encode(), value.encode()) for name, value in fields]
                headers = [*self._untyped_headers(), *more]
                await self._finish(send, HTTPStatus.SERVICE_UNAVAILABLE, headers)
                return
            await stream.wait_open()
            if stream.has_nothing_to_say:
                await self._finish(send, HTTPStatus.NO_CONTENT, self._untyped_headers())
            else:
                await _start(send, self.status_code, self.raw_headers)
                await stream.serve(receive, send, connection)
        finally:
            stream.close()

    async def _finish(self, send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        await _start(send, status, headers)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _untyped_headers(self) -> list[tuple[bytes, bytes]]:
        return [field for field in self.raw_headers if field[0] != b"content-type"]


def _cursor_of(scope: Scope) -> Position | None:
    # Servers for WSGI join what comes twice; here it comes twice.
    last_event_id = ",".join(Headers(scope=scope).getlist("last-event-id"))
    return cursor_of(last_event_id, scope.get("query_string", b"").decode("latin-1"))


async def _start(send: Send, status: int, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
