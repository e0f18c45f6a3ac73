"""One application in Flask and in Starlette: endpoints that behave, and that don't."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

import flask
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from streamy_redis import AsyncStreamManager, RedisUnavailable, StreamManager

__all__ = ["FOREIGN", "Hooks", "flask_app", "starlette_app"]

EVENT_STREAM = "text/event-stream"
# Of the headers, what /whoami says.
SHOWN = ("authorization", "cookie", "host", "user-agent", "x-tenant")
# Of another library: with CR, CRLF and a byte order mark, without stream-open and stream-end.
FOREIGN = b"\xef\xbb\xbfretry: 5\rid: 7\rdata: a\r\rdata: b\r\ndata:\r\n\r\n:c\n\ndata: cut"


class Hooks:
    """What the apps note of a response's life, and what lets those go on that wait."""

    def __init__(self) -> None:
        self.closed = 0
        self.release = threading.Event()

    def close(self) -> None:
        self.closed += 1


def flask_app(streams: StreamManager, hooks: Hooks) -> flask.Flask:
    app = flask.Flask("tested")
    app.testing = True
    app.secret_key = "not secret"

    @app.get("/streams/<stream_id>")
    def stream(stream_id: str) -> flask.Response:
        replay = flask.request.args.get("replay", 0)
        response = streams.get_stream(stream_id, replay="all" if replay == "all" else 0)
        response.call_on_close(hooks.close)
        return response

    @app.post("/streams/<stream_id>")
    def send(stream_id: str) -> tuple[str, int]:
        try:
            return streams.send_event(stream_id, flask.request.get_data()), 200
        except RedisUnavailable as exc:
            return str(exc), 503

    @app.post("/streams/<stream_id>/end")
    def end(stream_id: str) -> str:
        return str(streams.end_stream(stream_id, "bye"))

    @app.post("/login")
    def log_in() -> str:
        flask.session["user"] = "ada"
        return "in"

    @app.get("/private")
    def private() -> flask.Response:
        if flask.session.get("user") != "ada" or flask.request.headers.get("X-Token") != "t":
            flask.abort(403)
        return streams.get_stream("private")

    @app.get("/whoami")
    def whoami() -> dict[str, object]:
        request = flask.request
        return {
            "client": request.remote_addr,
            "root": request.root_path,
            "scheme": request.scheme,
            **{name: request.headers.get(name) for name in SHOWN},
        }

    @app.get("/slow-to-close")
    def slow_to_close() -> flask.Response:
        response = streams.get_stream("slow-to-close")
        response.call_on_close(lambda: hooks.release.wait(30))
        response.call_on_close(hooks.close)
        return response

    @app.get("/fails-to-close")
    def fails_to_close() -> flask.Response:
        def fail() -> None:
            raise ZeroDivisionError("at the end")

        response = streams.get_stream("fails-to-close")
        response.call_on_close(fail)
        return response

    @app.get("/foreign")
    def foreign() -> flask.Response:
        return flask.Response([bytes([b]) for b in FOREIGN], content_type=EVENT_STREAM)

    @app.get("/page")
    def page() -> str:
        return "a page"

    @app.get("/broken")
    def broken() -> str:
        raise ZeroDivisionError("broken")

    @app.get("/breaks")
    def breaks() -> flask.Response:
        def body() -> Iterator[bytes]:
            yield b"event: stream-open\ndata: {}\n\ndata: one\n\n"
            raise ZeroDivisionError("later")

        return flask.Response(body(), content_type=EVENT_STREAM)

    @app.get("/silent")
    def silent() -> flask.Response:
        def body() -> Iterator[bytes]:
            hooks.release.wait(30)
            yield b""

        response = flask.Response(body(), content_type=EVENT_STREAM)
        response.call_on_close(hooks.close)
        return response

    @app.get("/stuck")
    def stuck() -> str:
        hooks.release.wait(30)
        return "at last"

    return app


def starlette_app(
    streams: AsyncStreamManager, hooks: Hooks, *, has_lifespan: bool = True
) -> Starlette:
    async def stream(request: Request) -> Response:
        replay = request.query_params.get("replay", 0)
        response = streams.get_stream(
            request.path_params["stream_id"], replay="all" if replay == "all" else 0
        )
        response.background = BackgroundTask(hooks.close)
        return response

    async def send(request: Request) -> Response:
        try:
            stream_id = request.path_params["stream_id"]
            return PlainTextResponse(await streams.send_event(stream_id, await request.body()))
        except RedisUnavailable as exc:
            return PlainTextResponse(str(exc), 503)

    async def end(request: Request) -> Response:
        return PlainTextResponse(
            str(await streams.end_stream(request.path_params["stream_id"], "bye"))
        )

    async def log_in(request: Request) -> Response:
        response = PlainTextResponse("in")
        response.set_cookie("user", "ada")
        return response

    async def private(request: Request) -> Response:
        if request.cookies.get("user") != "ada" or request.headers.get("X-Token") != "t":
            return PlainTextResponse("no", 403)
        return streams.get_stream("private")

    async def whoami(request: Request) -> Response:
        said = {
            "client": list(request.scope["client"]),
            "root": request.scope["root_path"],
            "scheme": request.url.scheme,
            **{name: request.headers.get(name) for name in SHOWN},
        }
        return JSONResponse(said)

    async def foreign(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            for b in FOREIGN:
                yield bytes([b])

        return StreamingResponse(body(), media_type=EVENT_STREAM)

    async def page(request: Request) -> Response:
        return PlainTextResponse("a page")

    async def broken(request: Request) -> Response:
        raise ZeroDivisionError("broken")

    async def breaks(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            yield b"event: stream-open\ndata: {}\n\ndata: one\n\n"
            raise ZeroDivisionError("later")

        return StreamingResponse(body(), media_type=EVENT_STREAM)

    async def silent(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            await asyncio.sleep(30)
            yield b""

        return StreamingResponse(body(), media_type=EVENT_STREAM)

    async def stuck(request: Request) -> Response:
        # Neither the client's leaving nor one cancellation impresses it.
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(30)
        await asyncio.sleep(30)
        return PlainTextResponse("at last")

    async def blocked(request: Request) -> Response:
        hooks.release.wait(30)
        return PlainTextResponse("at last")

    return Starlette(
        routes=[
            Route("/streams/{stream_id}", stream),
            Route("/streams/{stream_id}", send, methods=["POST"]),
            Route("/streams/{stream_id}/end", end, methods=["POST"]),
            Route("/login", log_in, methods=["POST"]),
            Route("/private", private),
            Route("/whoami", whoami),
            Route("/foreign", foreign),
            Route("/page", page),
            Route("/broken", broken),
            Route("/breaks", breaks),
            Route("/silent", silent),
            Route("/stuck", stuck),
            Route("/blocked", blocked),
        ],
        lifespan=streams.lifespan if has_lifespan else None,
    )
