"""A Flask response whose body is a stream.

The response is made in the view and decided when the server asks for it: only then is a
subscriber registered, so that a response which a hook replaces costs nothing.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from flask import Response
from werkzeug.wsgi import ClosingIterator

from ..core.headers import retry_after
from ..core.publication import Position
from ..core.request import cursor_of
from ..exceptions import InvalidEvent
from ..servers import wsgi

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["OpenStream", "StreamResponse", "refuse_stream_id"]


class TakenSocket(Protocol):
    """A socket that its worker has given up."""

    def release_worker(self) -> None: ...


class OpenStream(Protocol):
    """What a response needs of a stream."""

    abort: Callable[[], None] | None

    def add(self, port: int | None) -> bool: ...
    def wait_open(self) -> None: ...
    @property
    def has_nothing_to_say(self) -> bool: ...
    def hand_over(
        self,
        environ: WSGIEnvironment,
        status: str,
        headers: list[tuple[str, str]],
        on_end: Callable[[], None],
    ) -> TakenSocket | None: ...
    def chunks(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...


def refuse_stream_id(error: InvalidEvent) -> Response:
    """400, with the rule that the stream id breaks."""
    return Response(f"{error}\n", HTTPStatus.BAD_REQUEST, content_type="text/plain; charset=utf-8")


class StreamResponse(Response):
    """Serves a stream to one client. Headers, cookies and close hooks are those of any response.

    Args:
        new_stream: makes the stream, given the request's cursor.
        headers: its fields.
    """

    # There is no length to know.
    automatically_set_content_length = False
    # An iterator without items keeps hooks from reading the body, which never ends.
    implicit_sequence_conversion = False

    def __init__(
        self,
        new_stream: Callable[[Position | None], OpenStream],
        headers: Sequence[tuple[str, str]],
    ) -> None:
        super().__init__(iter(()), headers=headers, direct_passthrough=True)
        self._new_stream = new_stream

    def get_wsgi_response(
        self, environ: WSGIEnvironment
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        """Werkzeug's last step before start_response: what the client really gets."""
        headers = self.get_wsgi_headers(environ).to_wsgi_list()
        if environ["REQUEST_METHOD"] == "HEAD":
            return self._body([]), self.status, headers
        cursor = cursor_of(environ.get("HTTP_LAST_EVENT_ID"), environ.get("QUERY_STRING", ""))
        stream = self._new_stream(cursor)
        if not stream.add(wsgi.port(environ)):
            return self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, [*headers, retry_after()])
        stream.wait_open()
        if stream.has_nothing_to_say:
            stream.close()
            return self._refuse(HTTPStatus.NO_CONTENT, headers)
        # Nothing but these is kept of the response: it is most of what a client would cost.
        on_end = functools.partial(_run_close_hooks, self._on_close)
        taken = stream.hand_over(environ, self.status, headers, on_end)
        if taken is not None:
            # For the worker and for every middleware it is an ordinary response, and finished.
            fields = [*headers, ("Content-Length", "0"), ("Connection", "close")]
            return ClosingIterator([], taken.release_worker), self.status, fields
        stream.abort = functools.partial(wsgi.abort, environ)
        fields = [*headers, *wsgi.connection_fields(environ)]
        return self._body(_Chunks(stream)), self.status, fields

    def _refuse(
        self, status: HTTPStatus, headers: list[tuple[str, str]]
    ) -> tuple[Iterable[bytes], str, list[tuple[str, str]]]:
        kept = [field for field in headers if field[0].lower() != "content-type"]
        return self._body([]), f"{status.value} {status.phrase}", kept

    def _body(self, chunks: Iterable[bytes]) -> Iterable[bytes]:
        return ClosingIterator(chunks, self.close)


def _run_close_hooks(hooks: Sequence[Callable[[], Any]]) -> None:
    """A response that was handed over has ended: its close hooks may wait, so off with them."""

    def run() -> None:
        for hook in hooks:
            hook()

    if hooks and not threading.main_thread().is_alive():
        # The process exits: no thread comes to anything any more.
        run()
    elif hooks:
        threading.Thread(target=run, name="streamy-redis-close", daemon=True).start()


class _Chunks:
    """The body; the server closes it when the client has left."""

    def __init__(self, stream: OpenStream) -> None:
        self._stream = stream
        self._chunks = stream.chunks()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        self._stream.close()
