"""What applications do to their responses: the stream is still there, or costs nothing."""

from __future__ import annotations

import contextlib
import copy
import gc
import os
import resource
import socket
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import pytest
from flask import Flask, Response, request, stream_with_context
from flask_compress import Compress
from werkzeug.middleware.lint import LintMiddleware
from werkzeug.test import EnvironBuilder
from werkzeug.wsgi import ClosingIterator

from streamy_redis import StreamConfig, StreamManager, StreamyError
from streamy_redis.sync.handover import TakenSocket
from tests.deadline import Deadline
from tests.event_stream import EventStreamParser, events_of

Hook = Callable[[Response], Response]


@pytest.fixture
def streams(redis_url: str, prefix: str) -> Iterator[StreamManager]:
    config = StreamConfig(prefix=prefix, max_subscribers=5)
    with StreamManager(redis_url, config=config) as streams:
        yield streams


class House(Response):
    """An application's own class, with rules of its own."""

    default_mimetype = "application/json"

    def get_wsgi_headers(self, environ: Any) -> Any:
        headers = super().get_wsgi_headers(environ)
        headers["X-House"] = "rules"
        return headers


class LoudHouse(Response):
    """One that changes every body."""

    def get_wsgi_response(self, environ: Any) -> Any:
        body, status, headers = super().get_wsgi_response(environ)
        return loud(body), status, headers


class Ranch(Response):
    """One that does everything when it is made, and takes no more than Flask gives."""

    __slots__ = ("mark",)
    default_status = 201

    def __init__(self, response: Any = None, status: Any = None, headers: Any = None) -> None:
        super().__init__(response, status, headers, mimetype="application/json")
        self.mark = "ours"
        self.headers["X-Frame-Options"] = "DENY"
        self.set_cookie("seen", "yes")

    def get_wsgi_headers(self, environ: Any) -> Any:
        headers = super().get_wsgi_headers(environ)
        headers["X-Mark"] = self.mark
        return headers


class EncodingHouse(Response):
    """One that changes every body when it is encoded."""

    def iter_encoded(self) -> Iterator[bytes]:
        return loud(super().iter_encoded())


class ClosingHouse(Response):
    """One that keeps account of what is over."""

    closed: ClassVar[list[str]] = []

    def close(self) -> None:
        self.closed.append(self.mimetype or "")
        super().close()


class WrappingHouse(Response):
    """One that changes every body when it is made."""

    def __init__(self, response: Any = None, *args: Any, **kwargs: Any) -> None:
        body = ClosingIterator(loud(response), getattr(response, "close", None))
        Response.__init__(self, body, *args, **kwargs)


class Site(Flask):
    """Its streams are at /<stream_id>, all of them whole."""

    def __init__(self, streams: StreamManager, response_class: type[Response] = Response) -> None:
        super().__init__(__name__)
        self.response_class = response_class
        self.add_url_rule("/<i>", view_func=lambda i: streams.get_stream(i, replay="all"))


class Reader:
    """One client of an application in this process."""

    def __init__(self, app: Flask, stream_id: str, **headers: str) -> None:
        self.answer = app.test_client().get(f"/{stream_id}", headers=headers, buffered=False)
        self._chunks = self.answer.iter_encoded()

    def next(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        self.answer.close()


def loud(body: Iterable[bytes]) -> Iterator[bytes]:
    for piece in body:
        yield piece.replace(b"hello", b"HELLO")


def wrap(response: Response) -> Response:
    response.response = loud(response.iter_encoded())
    return response


def wrap_as_text(response: Response) -> Response:
    response.response = (piece.decode() for piece in loud(response.response))
    return response


def wrap_in_its_context(response: Response) -> Response:
    response.response = stream_with_context(loud(response.response))  # type: ignore[arg-type]
    return response


def wrap_a_copy(response: Response) -> Response:
    return wrap(copy.copy(response))


def make_anew(response: Response) -> Response:
    return Response(loud(response.iter_encoded()), headers=response.headers)


def make_anew_from_app(response: Response) -> Response:
    return wrap(Response.from_app(response, request.environ))


# Those whose response is no longer of our class know no status but 200.
OURS = [wrap, wrap_as_text, wrap_in_its_context, wrap_a_copy]
ALL = [*OURS, make_anew, make_anew_from_app]


def hooked(streams: StreamManager, hook: Hook, response_class: type[Response] = Response) -> Flask:
    app = Site(streams, response_class)
    app.after_request(hook)
    return app


def open_count(streams: StreamManager) -> int:
    gc.collect()
    return streams.stats().subscribers


def assert_none_is_left(streams: StreamManager) -> None:
    Deadline(2).until(lambda: open_count(streams) == 0, lambda: open_count(streams))


# -- a class of one's own -------------------------------------------------------------------------


def test_a_response_is_of_the_applications_class_with_its_rules(streams: StreamManager):
    app = Site(streams, House)
    streams.end_stream("room", "bye")

    with app.test_request_context("/"):
        response = streams.get_stream("room")
        made = app.make_response(response)
    answer = app.test_client().get("/room")

    assert isinstance(response, House)
    assert made is response
    assert answer.headers["X-House"] == "rules"
    assert answer.mimetype == "text/event-stream"
    assert events_of(answer.data)[-1].data == "bye"


def test_a_class_that_does_everything_when_it_is_made_does_it_for_a_stream(
    streams: StreamManager,
):
    app = Site(streams, Ranch)
    streams.end_stream("room", "bye")

    with app.test_request_context("/"):
        response = streams.get_stream("room", headers={"X-View": "this"})
        made = app.make_response(response)
    answer = app.test_client().get("/room")

    assert made is response
    assert response.headers["X-View"] == "this"
    # Browsers give up on any other.
    assert answer.status_code == 200
    # The test client makes its answer by the same class.
    assert response.mimetype == "text/event-stream"
    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    assert answer.headers["X-Frame-Options"] == "DENY"
    assert answer.headers["X-Mark"] == "ours"
    assert answer.headers["Set-Cookie"] == "seen=yes; Path=/"
    assert events_of(answer.data)[-1].data == "bye"


@pytest.mark.parametrize("response_class", [LoudHouse, WrappingHouse, EncodingHouse])
def test_a_class_that_changes_every_body_changes_a_streams_too(
    streams: StreamManager, response_class: type[Response]
):
    # Without the test client, whose answers are of that class once more.
    site = Site(streams, response_class)
    body: Any = site.wsgi_app(EnvironBuilder("/room").get_environ(), start_nothing)
    assert b"stream-open" in next(body)

    streams.send_event("room", "hello")

    assert b"data: HELLO\n" in next(body)
    body.close()
    assert_none_is_left(streams)


def test_a_response_that_was_made_the_class_by_force_serves_its_stream(streams: StreamManager):
    """Outside of an application there is no telling its class."""
    response = House.force_type(streams.get_stream("room", replay="all"))
    streams.send_event("room", "hello")

    with pytest.raises(RuntimeError, match="passthrough"):
        response.get_data()
    body, status, _ = response.get_wsgi_response(EnvironBuilder("/").get_environ())

    assert status == "200 OK"
    assert b"data: hello\n" in next(iter(body))
    response.close()
    assert_none_is_left(streams)


# -- hooks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("response_class", [Response, House])
@pytest.mark.parametrize("hook", ALL)
def test_each_event_goes_through_a_hooks_wrapping_at_once(
    streams: StreamManager, hook: Hook, response_class: type[Response]
):
    reader = Reader(hooked(streams, hook, response_class), "room")
    assert b"event: stream-open\n" in reader.next()

    for n in range(3):
        streams.send_event("room", f"hello {n}")
        assert f"data: HELLO {n}\n".encode() in reader.next()
    reader.close()

    assert_none_is_left(streams)


@pytest.mark.parametrize("hook", OURS)
def test_a_wrapped_response_still_says_what_stops_a_client(streams: StreamManager, hook: Hook):
    app = hooked(streams, hook)
    streams.end_stream("room")
    end = streams.info("room").last_event_id
    assert end is not None

    ended = app.test_client().get("/room", headers={"Last-Event-ID": end})
    readers = [Reader(app, f"other {n}") for n in range(5)]
    refused = app.test_client().get("/room")

    assert (ended.status_code, ended.data) == (204, b"")
    assert (refused.status_code, refused.data) == (503, b"")
    assert int(refused.headers["Retry-After"]) > 0
    # Flask's contexts are a stack, which several requests share in one thread.
    for each in reversed(readers):
        each.close()
    assert_none_is_left(streams)


def test_a_response_made_anew_shows_the_end_to_who_has_seen_it(streams: StreamManager):
    """Its status is said: 204 would be better, but a page that listens stops at this as well."""
    streams.send_event("room", "hello")
    streams.end_stream("room", "bye")
    end = streams.info("room").last_event_id
    assert end is not None

    app = hooked(streams, make_anew)
    answer = app.test_client().get("/room", headers={"Last-Event-ID": end})

    assert [event.type for event in events_of(answer.data)] == ["stream-open", "stream-end"]
    assert events_of(answer.data)[-1].data == "bye"
    assert_none_is_left(streams)


def test_a_response_made_anew_fails_where_there_are_too_many(streams: StreamManager):
    app = hooked(streams, make_anew)
    readers = [Reader(app, f"room {n}") for n in range(5)]

    with pytest.raises(StreamyError, match="max_subscribers"):
        Reader(app, "one more")

    for each in readers:
        each.close()
    assert_none_is_left(streams)


@pytest.mark.parametrize("hook", [lambda response: response, *ALL])
def test_head_is_answered_whatever_a_hook_does(streams: StreamManager, hook: Hook):
    answer = hooked(streams, hook).test_client().head("/room")

    assert (answer.status_code, answer.mimetype, answer.data) == (200, "text/event-stream", b"")
    assert_none_is_left(streams)


@pytest.mark.parametrize(
    "way",
    [
        lambda response: response.get_data(),
        lambda response: response.make_sequence(),
        lambda response: response.freeze(),
        lambda response: response.add_etag(),
        lambda response: response.calculate_content_length() or 1 / 0,
    ],
)
@pytest.mark.parametrize("hook", [lambda response: response, wrap])
@pytest.mark.parametrize("response_class", [Response, House])
def test_nothing_waits_for_the_end_of_a_body_that_has_none(
    streams: StreamManager, response_class: type[Response], hook: Hook, way: Any
):
    app = Site(streams, response_class)
    with app.test_request_context("/"):
        response = hook(app.make_response(streams.get_stream("room")))
        assert response.is_streamed
        assert not response.is_sequence
        with pytest.raises((RuntimeError, ZeroDivisionError)):
            way(response)


def test_a_hook_may_put_something_else_in_its_place(streams: StreamManager):
    def replace(response: Response) -> Response:
        response.set_data("closed today")
        response.status_code = 403
        return response

    answer = hooked(streams, replace).test_client().get("/room")

    assert (answer.status_code, answer.text) == (403, "closed today")
    assert open_count(streams) == 0


def test_a_hook_may_say_that_nothing_has_changed(streams: StreamManager):
    def condition(response: Response) -> Response:
        response.set_etag("same")
        return response.make_conditional(request)

    client = hooked(streams, condition).test_client()
    answer = client.get("/room", headers={"If-None-Match": '"same"'})

    assert (answer.status_code, answer.data) == (304, b"")
    assert open_count(streams) == 0


@pytest.mark.parametrize("hook", [lambda response: response, wrap])
@pytest.mark.parametrize("response_class", [Response, House])
def test_close_hooks_run_once_whatever_stands_around_the_body(
    streams: StreamManager, hook: Hook, response_class: type[Response]
):
    closed = []
    app = hooked(streams, hook, response_class)

    @app.after_request
    def note(response: Response) -> Response:
        response.call_on_close(lambda: closed.append("room"))
        return response

    reader = Reader(app, "room")
    reader.next()
    assert closed == []
    reader.close()

    assert closed == ["room"]


# -- compression ----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["gzip", "deflate", "br", "zstd"])
@pytest.mark.parametrize("streams_are_compressed", [True, False])
def test_flask_compress_leaves_a_stream_plain(
    streams: StreamManager, algorithm: str, streams_are_compressed: bool
):
    """It never flushes: events would wait for others, up to 64 KB of them."""
    app = Site(streams)
    app.config |= {
        "COMPRESS_MIMETYPES": ["text/event-stream"],
        "COMPRESS_ALGORITHM": algorithm,
        "COMPRESS_ALGORITHM_STREAMING": algorithm,
        "COMPRESS_STREAMS": streams_are_compressed,
    }
    Compress(app)
    reader = Reader(app, "room", **{"Accept-Encoding": algorithm})
    reader.next()

    streams.send_event("room", "hello")

    assert b"data: hello\n" in reader.next()
    assert "Content-Encoding" not in reader.answer.headers
    reader.close()


def test_a_hook_that_compresses_and_flushes_is_heard(streams: StreamManager):
    def compress(response: Response) -> Response:
        packer = zlib.compressobj(wbits=31)

        def packed(body: Iterable[bytes]) -> Iterator[bytes]:
            for piece in body:
                yield packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH)

        response.response = packed(response.iter_encoded())
        response.headers["Content-Encoding"] = "gzip"
        return response

    reader = Reader(hooked(streams, compress), "room")
    unpacker, parser = zlib.decompressobj(wbits=31), EventStreamParser()
    assert parser.feed(unpacker.decompress(reader.next()))[0].type == "stream-open"

    streams.send_event("room", "hello")

    assert [event.data for event in parser.feed(unpacker.decompress(reader.next()))] == ["hello"]
    assert reader.answer.headers["Content-Encoding"] == "gzip"
    reader.close()


# -- requests that come to nothing ----------------------------------------------------------------


class Interruption(BaseException):
    """As KeyboardInterrupt, GreenletExit, gevent.Timeout: none of them an Exception."""


def environ() -> Any:
    return EnvironBuilder("/room").get_environ()


def start_nothing(status: str, headers: Any, exc_info: Any = None) -> Any:
    return lambda data: None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, Interruption])
@pytest.mark.parametrize("hook", [lambda response: response, *ALL])
def test_nothing_is_left_when_a_response_can_not_be_started(
    streams: StreamManager, hook: Hook, error: type[BaseException]
):
    def refuse(status: str, headers: Any, exc_info: Any = None) -> Any:
        raise error

    app = hooked(streams, hook)
    for _ in range(6):
        with pytest.raises(error):
            app.wsgi_app(environ(), refuse)

    assert_none_is_left(streams)


@pytest.mark.parametrize("moment", ["add", "wait_open", "has_nothing_to_say"])
@pytest.mark.parametrize("hook", [lambda response: response, wrap, make_anew])
def test_nothing_is_left_of_a_request_that_is_interrupted(
    streams: StreamManager, hook: Hook, moment: str, monkeypatch: pytest.MonkeyPatch
):
    from streamy_redis.sync.stream import Stream

    original = getattr(Stream, moment)

    def interrupted(stream: Stream, *arguments: object) -> Any:
        (original.fget if isinstance(original, property) else original)(stream, *arguments)
        raise Interruption

    replaced = property(interrupted) if isinstance(original, property) else interrupted
    app = hooked(streams, hook)
    with monkeypatch.context() as patch:
        patch.setattr(Stream, moment, replaced)
        for _ in range(6):
            with pytest.raises(Interruption):
                next(iter(app.wsgi_app(environ(), start_nothing)))

    assert_none_is_left(streams)
    reader = Reader(app, "room")
    assert b"stream-open" in reader.next()
    reader.close()


@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize("hook", [lambda response: response, *ALL])
def test_nothing_is_left_of_a_body_that_a_middleware_drops(
    streams: StreamManager, hook: Hook, has_begun: bool
):
    """Neither iterated to its end, nor closed."""
    app = hooked(streams, hook)
    for _ in range(2):
        body = app.wsgi_app(environ(), start_nothing)
        if has_begun:
            next(iter(body))
        del body
        gc.collect()
        # Soon, and by another thread: a finalizer may run in the middle of anything.
        assert_none_is_left(streams)


class Connection:
    """A client's connection as gunicorn shows it, with the worker's end of it."""

    def __init__(self) -> None:
        self.client, self.worker = socket.socketpair()
        self.client.settimeout(5)
        self.environ = EnvironBuilder("/room").get_environ() | {
            "gunicorn.socket": self.worker,
            "SERVER_PROTOCOL": "HTTP/1.1",
        }

    def is_the_workers(self) -> bool:
        self.worker.sendall(b"an error page")
        return self.client.recv(100) == b"an error page"

    def read_until(self, words: bytes) -> bytes:
        received = b""
        while words not in received:
            piece = self.client.recv(65536)
            assert piece, received
            received += piece
        return received

    def close(self) -> None:
        self.client.close()
        self.worker.close()


@pytest.fixture
def connection(streams: StreamManager) -> Iterator[Connection]:
    # One that was taken before: what all of them share has been made.
    with contextlib.closing(Connection()) as first:
        list(Site(streams).wsgi_app(first.environ, start_nothing))
        first.read_until(b"stream-open")
        streams.send_event("room", "hello")
    assert_none_is_left(streams)
    with contextlib.closing(Connection()) as connection:
        yield connection


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


def test_a_socket_is_taken_when_the_server_asks_for_the_body(
    streams: StreamManager, connection: Connection
):
    before = descriptors()
    body = Site(streams).wsgi_app(connection.environ, start_nothing)
    assert connection.is_the_workers()

    assert list(body) == []
    body.close()  # type: ignore[attr-defined]
    connection.read_until(b"stream-open")
    streams.send_event("room", "hello")

    assert b"data: hello\n" in connection.read_until(b"hello\n")
    assert descriptors() == before + 1
    connection.client.close()
    assert_none_is_left(streams)
    Deadline(5).until(lambda: descriptors() == before - 1, descriptors)


def test_a_class_with_its_own_close_has_it_called_once_a_taken_stream_is_over(
    streams: StreamManager, connection: Connection, monkeypatch: pytest.MonkeyPatch
):
    closed: list[str] = []
    monkeypatch.setattr(ClosingHouse, "closed", closed)
    site = Site(streams, ClosingHouse)

    @site.after_request
    def hook(response: Response) -> Response:
        response.call_on_close(lambda: closed.append("hook"))
        return response

    body: Any = site.wsgi_app(connection.environ, start_nothing)
    assert list(body) == []
    body.close()
    connection.read_until(b"stream-open")
    assert closed == []

    streams.end_stream("room")

    Deadline(5).until(lambda: len(closed) >= 2, lambda: closed)
    Deadline(0.2).stays(lambda: closed == ["text/event-stream", "hook"])


@pytest.mark.parametrize("way", ["is refused", "is dropped", "is closed", "is interrupted"])
def test_a_response_that_is_not_asked_for_its_body_leaves_the_worker_its_socket(
    streams: StreamManager, connection: Connection, way: str, monkeypatch: pytest.MonkeyPatch
):
    def refuse(status: str, headers: Any, exc_info: Any = None) -> Any:
        raise Interruption

    def interrupt(*arguments: object) -> None:
        raise Interruption

    before = descriptors()
    if way == "is refused":
        with pytest.raises(Interruption):
            Site(streams).wsgi_app(connection.environ, refuse)
    else:
        body: Any = Site(streams).wsgi_app(connection.environ, start_nothing)
        if way == "is interrupted":
            with monkeypatch.context() as patch:
                patch.setattr(TakenSocket, "take", interrupt)
                with pytest.raises(Interruption):
                    next(body)
        if way != "is dropped":
            body.close()
        del body

    assert connection.is_the_workers()
    assert_none_is_left(streams)
    Deadline(5).until(lambda: descriptors() == before, descriptors)


def test_a_stream_for_whose_socket_there_is_no_descriptor_takes_no_thread(
    streams: StreamManager, connection: Connection
):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    statuses: list[str] = []

    class LastHouse(Response):
        """Others take what is left, when the stream is registered."""

        def get_wsgi_response(self, environ: Any) -> Any:
            answer = super().get_wsgi_response(environ)
            resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
            return answer

    def start(status: str, headers: Any, exc_info: Any = None) -> Any:
        statuses.append(status)
        return lambda data: None

    try:
        body: Any = Site(streams, LastHouse).wsgi_app(connection.environ, start)
        assert list(body) == []
        body.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    assert statuses == ["503 Service Unavailable"]
    assert streams.stats().short_of_descriptors == 1
    assert_none_is_left(streams)


def test_a_checking_middleware_has_nothing_to_say_of_it(streams: StreamManager):
    app = Site(streams)
    app.wsgi_app = LintMiddleware(app.wsgi_app)  # type: ignore[method-assign]
    reader = Reader(app, "room")
    reader.next()

    streams.send_event("room", "hello")

    assert b"data: hello\n" in reader.next()
    reader.close()
    assert_none_is_left(streams)
