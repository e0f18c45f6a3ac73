"""A Flask response whose body is a stream.

The response is made in the view and decided when the server asks for it: only then is a
subscriber registered, so that a response which a hook replaces costs nothing. As long as nobody
has put anything around the body, its socket may be handed over; otherwise it is an iterable like
any other, and registers itself with the first look at it.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

import flask
from flask import Response
from werkzeug.datastructures import Headers
from werkzeug.wsgi import ClosingIterator

from ..core.headers import retry_after
from ..core.publication import Position
from ..core.request import cursor_of
from ..exceptions import InvalidEvent, StreamyError
from ..servers import wsgi
from .close_hooks import run_close_hooks
from .frameworks import not_for_asgi

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["NewStream", "OpenStream", "StreamResponse", "new_response", "refuse_stream_id"]


class Handover(Protocol):
    """A stream whose socket its worker may give up."""

    @property
    def is_taken(self) -> bool: ...
    def take(self) -> None: ...
    def close(self) -> None: ...


class OpenStream(Protocol):
    """What a response needs of a stream."""

    abort: Callable[[], bool] | None
    swap_user_timeout: Callable[[int, int], None] | None

    def add(self, port: int | None) -> bool: ...
    def wait_open(self) -> None: ...
    @property
    def has_nothing_to_say(self) -> bool: ...
    def prepare_handover(
        self,
        environ: WSGIEnvironment,
        status: str,
        headers: list[tuple[str, str]],
        on_end: Callable[[], None],
    ) -> Handover | None: ...
    def chunks(self) -> Iterator[bytes]: ...
    def close(self) -> None: ...
    def forget(self) -> None: ...


# Makes a stream, given the request's cursor, and whether it shows no more than the end.
NewStream = Callable[[Position | None, bool], OpenStream]
WsgiResponse = tuple[Iterable[bytes], str, list[tuple[str, str]]]

# What compressing hooks look at before they touch a body. It is a note to them, and never sent.
_NOT_TO_BE_ENCODED = ("Content-Encoding", "identity")


def refuse_stream_id(error: InvalidEvent) -> Response:
    """400, with the rule that the stream id breaks."""
    return Response(f"{error}\n", HTTPStatus.BAD_REQUEST, content_type="text/plain; charset=utf-8")


def new_response(new_stream: NewStream, headers: Sequence[tuple[str, str]]) -> StreamResponse:
    """The response, of the class that the application's responses have, too.

    Flask would turn it into one that is of that class only (Response.force_type).
    """
    response_class = StreamResponse
    if flask.has_app_context():
        theirs: type = flask.current_app.response_class
        with contextlib.suppress(TypeError):
            response_class = _class_for(theirs)
    environ = flask.request.environ if flask.has_request_context() else None
    body = _Body(new_stream, environ)
    # As Flask makes those of texts: what the class does then, it does here as well.
    response = response_class(body, status=None, headers=Headers(headers))
    response.carry(body, Headers(headers)["Content-Type"])
    return response


# An application has one class; tests have many applications.
@functools.lru_cache(maxsize=16)
def _class_for(response_class: type) -> type[StreamResponse]:
    """Raises TypeError where the two can't be one."""
    if issubclass(StreamResponse, response_class):
        return StreamResponse
    # The application's comes first: what it changes, it changes here as well.
    return type(response_class.__name__, (response_class, StreamResponse), {})


class StreamResponse(Response):
    """Serves a stream to one client. Headers, cookies and close hooks are those of any response."""

    _body: _Body

    def carry(self, body: _Body, content_type: str) -> None:
        """What a stream asks of its response, whatever the application's class made of it."""
        self._body = body
        self.direct_passthrough = True
        # Browsers take no other for a stream.
        self.status_code = HTTPStatus.OK
        self.headers["Content-Type"] = content_type
        self.headers.setdefault(*_NOT_TO_BE_ENCODED)
        # For each class that it may become: there is no length to know, and nobody is to wait for
        # all of a body that never ends.
        self.automatically_set_content_length = False
        self.implicit_sequence_conversion = False

    def close(self) -> None:
        """Ends the stream, if it is served, and runs the close hooks."""
        # What stands around it need not have a close() that comes through.
        self._body.close()
        super().close()

    def make_sequence(self) -> None:
        """Refused, since it would never return."""
        if self.is_streamed:
            raise RuntimeError(
                "a stream can't be read to its end: wrap response.response to change it on its way"
            )

    def freeze(self) -> None:
        """Refused, since it would never return."""
        self.make_sequence()
        super().freeze()

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse, *more: object
    ) -> Iterable[bytes]:
        """Serves it: the worker gives up the socket with the first look at what is returned.

        By then every middleware has had its say, and whatever fails is answered by the server.
        """
        if more:
            # Scope, receive and send.
            raise not_for_asgi()
        answer = self.get_wsgi_response(environ)
        try:
            app_iter, status, headers = self._handed_over(answer, environ)
            if self._body.refusal is HTTPStatus.SERVICE_UNAVAILABLE:
                # Its descriptor may be what others lack.
                wsgi.close_behind(environ, start_response)
            start_response(status, headers)
        except BaseException:
            self._body.close()
            raise
        return app_iter

    def get_wsgi_response(self, environ: WSGIEnvironment) -> WsgiResponse:
        """Werkzeug's last step before start_response: what the client really gets."""
        self._body.environ = environ
        # The status isn't said yet, so that the body may change it.
        self._body.can_refuse = True
        try:
            app_iter, status, headers = self._open(environ)
        except BaseException:
            self._body.close()
            raise
        if self._body.refusal is not None:
            return self._refused(self._body.refusal, environ, headers)
        more = wsgi.connection_fields(environ) if self.is_streamed else []
        return app_iter, status, [*headers, *more]

    def _refused(
        self, refusal: HTTPStatus, environ: WSGIEnvironment, headers: list[tuple[str, str]]
    ) -> WsgiResponse:
        kept = [field for field in headers if field[0].lower() != "content-type"]
        if refusal is HTTPStatus.SERVICE_UNAVAILABLE:
            kept += [retry_after(), *wsgi.connection_fields(environ)]
        return ClosingIterator((), self.close), f"{refusal.value} {refusal.phrase}", kept

    def _open(self, environ: WSGIEnvironment) -> WsgiResponse:
        if self.response is self._body and type(self).iter_encoded is Response.iter_encoded:
            has_body = environ["REQUEST_METHOD"] != "HEAD" and _allows_body(self.status_code)
            if has_body:
                self._body.open()
            return super().get_wsgi_response(environ)
        # What a hook or the application's class makes of it: as any response's, but that the first
        # look shows a refusal.
        self.direct_passthrough = False
        app_iter, status, headers = super().get_wsgi_response(environ)
        if self.is_streamed:
            app_iter = _begun(app_iter)
        return app_iter, status, headers

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        headers = super().get_wsgi_headers(environ)
        if headers.get(_NOT_TO_BE_ENCODED[0]) == _NOT_TO_BE_ENCODED[1]:
            headers.remove(_NOT_TO_BE_ENCODED[0])
        if self.is_streamed:
            headers.remove("Content-Length")
        return headers

    def get_app_iter(self, environ: WSGIEnvironment) -> Iterable[bytes]:
        app_iter = super().get_app_iter(environ)
        if app_iter is self._body:
            # Werkzeug runs no close hooks of what it passes through.
            return _Unchanged(self._body, self.close)
        return app_iter

    def _handed_over(self, answer: WsgiResponse, environ: WSGIEnvironment) -> WsgiResponse:
        """The same, or what stands for it where its socket can be taken."""
        app_iter, status, headers = answer
        try:
            handover = self._prepare_handover(app_iter, environ, status, headers)
        except OSError:
            # For want of a descriptor: a thread would be taken for no less time.
            self._body.refuse()
            return self._refused(HTTPStatus.SERVICE_UNAVAILABLE, environ, headers)
        if handover is None:
            return answer
        # For the worker and for every middleware it is an ordinary response, and finished.
        headers = [*headers, ("Content-Length", "0"), ("Connection", "close")]
        return _HandedOver(handover, self._body, self.close), status, headers

    def _prepare_handover(
        self,
        app_iter: Iterable[bytes],
        environ: WSGIEnvironment,
        status: str,
        headers: list[tuple[str, str]],
    ) -> Handover | None:
        """None where the body isn't served as it is, or can't be handed over."""
        if not isinstance(app_iter, _Unchanged) or self._body.stream is None:
            return None
        if any(name.lower() == "content-encoding" for name, _ in headers):
            return None
        on_end = functools.partial(run_close_hooks, self._close_hooks())
        return self._body.stream.prepare_handover(environ, status, headers, on_end)

    def _close_hooks(self) -> Sequence[Callable[[], Any]]:
        if type(self).close is StreamResponse.close:
            # Nothing but these is kept of the response: it is most of what a client would cost.
            return self._on_close
        # The application's class has something to do then, and does this as well.
        return [self.close]


def _allows_body(status: int) -> bool:
    return status >= 200 and status not in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


def _begun(app_iter: Iterable[bytes]) -> Iterable[bytes]:
    """The same, when its first piece is there."""
    iterator = iter(app_iter)
    first = list(itertools.islice(iterator, 1))
    return ClosingIterator(itertools.chain(first, iterator), getattr(app_iter, "close", None))


class _Body:
    """The stream as an iterable: for the server, or for what hooks and middlewares put around it.

    Attributes:
        environ: of the request that it answers, as far as it is known.
        can_refuse: whether somebody looks at `refusal` before the status is said.
        refusal: the status to be said in its place: 503 or 204.
        stream: while it is registered.
    """

    def __init__(self, new_stream: NewStream, environ: WSGIEnvironment | None) -> None:
        self.environ = environ
        self.can_refuse = False
        self.refusal: HTTPStatus | None = None
        self.stream: OpenStream | None = None
        self._new_stream = new_stream
        self._chunks: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if self._chunks is None:
            self._begin()
        assert self._chunks is not None
        return next(self._chunks)

    def _begin(self) -> None:
        try:
            if self.stream is None:
                self.open()
            if self.refusal is not None and not self.can_refuse:
                self._refuse_in_the_body()
        except BaseException:
            self.close()
            raise
        self._chunks = iter(()) if self.stream is None else self.stream.chunks()

    def open(self) -> None:
        """Registers a subscriber, and waits until it is known whether it has anything to say.

        Whatever it raises, close() is the caller's to call.
        """
        self._register(shows_end=False)
        if self.refusal is None and self.stream is not None and self.stream.has_nothing_to_say:
            self.close()
            self.refusal = HTTPStatus.NO_CONTENT

    def _register(self, *, shows_end: bool) -> None:
        environ = self.environ or {}
        cursor = cursor_of(environ.get("HTTP_LAST_EVENT_ID"), environ.get("QUERY_STRING", ""))
        stream = self.stream = self._new_stream(cursor, shows_end)
        if stream.add(wsgi.port(environ)):
            stream.abort = functools.partial(wsgi.abort, environ)
            stream.swap_user_timeout = functools.partial(wsgi.swap_user_timeout, environ)
            stream.wait_open()
        else:
            self.refuse()

    def refuse(self) -> None:
        """There are too many."""
        self.close()
        self.refusal = HTTPStatus.SERVICE_UNAVAILABLE

    def _refuse_in_the_body(self) -> None:
        """It is too late for a status of our own: the end is shown, and what fails is told."""
        if self.refusal is HTTPStatus.NO_CONTENT:
            self.refusal = None
            self._register(shows_end=True)
        if self.refusal is not None:
            raise StreamyError(
                "max_subscribers is reached, or too few descriptors are left, and the status of a "
                "response that was made of a stream's can't say so"
            )

    def hand_over(self) -> None:
        """The stream is another's from now on."""
        self.stream = None
        self._chunks = iter(())

    def close(self) -> None:
        """Nobody wants it any more. Repeating it is harmless."""
        self._chunks = iter(())
        if self.stream is not None:
            self.stream.close()
            # Not before: what is interrupted here is finished by __del__.
            self.stream = None

    def __del__(self) -> None:
        # Dropped without a word, as middlewares do with what they replace.
        if self.stream is not None:
            self.stream.forget()


class _Unchanged(ClosingIterator):
    """The body as it is: whoever puts something around it makes another iterable of it."""


class _HandedOver:
    """What the worker gets to serve: nothing. Its socket is taken when it asks for that."""

    def __init__(self, handover: Handover, body: _Body, close: Callable[[], None]) -> None:
        self._handover = handover
        self._body = body
        # Of the response; once its socket is taken, its end is the stream's affair.
        self._close = close

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        if not self._handover.is_taken:
            try:
                self._handover.take()
            finally:
                if self._handover.is_taken:
                    self._body.hand_over()
        raise StopIteration

    def close(self) -> None:
        self._handover.close()
        if not self._handover.is_taken:
            self._close()
