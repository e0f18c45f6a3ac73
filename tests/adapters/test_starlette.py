"""What get_stream returns is a Starlette response like any other."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Iterator

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from streamy_redis import AsyncStreamManager, InvalidEvent, StreamConfig
from tests.event_stream import events_of

with warnings.catch_warnings():
    # Newer ones would rather have httpx2 than httpx.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient


@pytest.fixture
def streams(redis_url: str, prefix: str) -> AsyncStreamManager:
    return AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix))


@pytest.fixture
def client(streams: AsyncStreamManager) -> Iterator[TestClient]:
    async def stream(request: Request) -> Response:
        return streams.get_stream(request.path_params["stream_id"], replay="all")

    async def fill(request: Request) -> Response:
        stream_id = request.path_params["stream_id"]
        ids = await streams.send_events(stream_id, ["a", "b"])
        await streams.end_stream(stream_id, "bye")
        return JSONResponse(ids)

    app = Starlette(
        routes=[Route("/{stream_id}", stream), Route("/{stream_id}", fill, methods=["POST"])],
        middleware=[Middleware(GZipMiddleware, minimum_size=1)],
        lifespan=streams.lifespan,
    )
    with TestClient(app) as client:
        yield client


def test_it_is_a_response_that_sets_no_connection_header(streams: AsyncStreamManager):
    response = streams.get_stream("room")

    assert isinstance(response, Response)
    assert response.status_code == 200
    assert "connection" not in response.headers
    assert "content-length" not in response.headers
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_the_test_client_reads_an_ended_stream_to_its_end(client: TestClient):
    client.post("/room")

    answer = client.get("/room")

    assert answer.status_code == 200
    assert "content-encoding" not in answer.headers
    assert [e.data for e in events_of(answer.content)] == ["{}", "a", "b", "bye"]


def test_the_test_client_gets_204_400_and_head(client: TestClient):
    client.post("/room")
    end = events_of(client.get("/room").content)[-1].last_event_id

    assert client.get("/room", headers={"Last-Event-ID": end}).status_code == 204
    assert client.get("/" + "x" * 513).status_code == 400
    head = client.head("/room")
    assert (head.status_code, head.content) == (200, b"")


def test_arguments_of_the_wrong_kind_are_refused_in_the_endpoint(streams: AsyncStreamManager):
    cases = [
        {"event_name": "a\nb"},
        {"event_name": "stream-x"},
        {"replay": -1},
        {"replay": "some"},
        {"keep_alive_interval": 0},
        {"keep_alive_interval": "1"},
        {"headers": {"X": "a\r\nSet-Cookie: x=y"}},
        {"headers": {"X Y": "a"}},
        {"headers": {"Content-Length": "5"}},
        {"headers": {"X": 1}},
    ]
    for arguments in cases:
        with pytest.raises((InvalidEvent, ValueError, TypeError), match=next(iter(arguments))):
            streams.get_stream("room", **arguments)


def test_get_stream_needs_no_running_loop_and_connects_nothing():
    streams = AsyncStreamManager("redis://127.0.0.1:1/0")

    assert streams.get_stream("room").status_code == 200


def test_an_app_without_our_lifespan_works_too(redis_url: str, prefix: str):
    streams = AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix))

    async def stream(request: Request) -> Response:
        await streams.send_event("room", "x")
        await streams.end_stream("room")
        return streams.get_stream("room", replay="all")

    async def served() -> list[bytes]:
        """A scope as bare as servers give it, without `asgi` and `extensions`."""
        sent: list[bytes] = []
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}

        async def receive() -> dict[str, object]:
            await asyncio.sleep(60)
            raise AssertionError

        async def send(message: dict[str, object]) -> None:
            sent.append(message.get("body", b""))  # type: ignore[arg-type]

        await Starlette(routes=[Route("/", stream)])(scope, receive, send)
        await streams.aclose()
        return sent

    body = b"".join(asyncio.run(asyncio.wait_for(served(), 10)))

    assert [e.data for e in events_of(body)] == ["{}", "x", "{}"]
