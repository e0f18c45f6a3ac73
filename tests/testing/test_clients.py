"""What is particular to one framework's client, or to one kind of Redis."""

from __future__ import annotations

import asyncio
import json
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import flask
import httpx
import pytest
from flask.testing import FlaskClient

from streamy_redis import AsyncStreamManager, StreamConfig, StreamManager
from streamy_redis.testing import MissingEvents, RedisServer, open_stream
from tests.deadline import Deadline

from .apps import Hooks, flask_app, starlette_app

with warnings.catch_warnings():
    # Newer ones would rather have httpx2 than httpx.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient

# ada, secret
BASIC = "Basic YWRhOnNlY3JldA=="


class Token(httpx.Auth):
    """For coroutines only: it may have to wait for its lock."""

    async def async_auth_flow(self, request):
        request.headers["Authorization"] = "Bearer t"
        yield request


@pytest.fixture
def app(server: RedisServer, prefix: str) -> Iterator[flask.Flask]:
    with StreamManager(server.url, config=StreamConfig(prefix=prefix)) as streams:
        yield flask_app(streams, Hooks())


def test_a_flask_client_that_keeps_contexts_keeps_those_of_its_own_requests(app: flask.Flask):
    done: list[str] = []
    app.teardown_request(lambda error: done.append(flask.request.path))

    with app.test_client() as client:
        with open_stream(client, "/streams/room") as stream:
            client.post("/streams/room", data="x")
            assert flask.request.method == "POST"
            stream.collect(1)
        client.post("/login")
        assert flask.session["user"] == "ada"
        client.get("/page")

    assert done.count("/login") == 2  # one by the client
    assert done.count("/streams/room") == 3


def test_a_flask_client_is_who_it_is_in_its_other_requests(app: flask.Flask):
    class Client(FlaskClient):
        """With a header of its own, as Flask's documentation shows."""

        def open(self, *args, **kwargs):
            headers = {"Authorization": "Bearer t", **kwargs.pop("headers", {})}
            return super().open(*args, headers=headers, **kwargs)

    app.test_client_class = Client
    app.config.update(APPLICATION_ROOT="/root", PREFERRED_URL_SCHEME="https", SERVER_NAME="test")
    client = app.test_client()
    client.environ_base.update(REMOTE_ADDR="10.1.2.3", HTTP_X_TENANT="acme")
    client.set_cookie("user", "ada", domain="test")

    with open_stream(client, "/whoami") as stream:
        said = json.loads(stream.text)

    assert said == client.get("/whoami").json
    assert {"10.1.2.3", "acme", "user=ada", "Bearer t", "https", "/root"} <= set(said.values())


def test_a_starlette_client_is_who_it_is_in_its_other_requests(server: RedisServer):
    client = TestClient(
        starlette_app(AsyncStreamManager(server.url), Hooks()),
        base_url="https://test",
        root_path="/root",
        client=("10.1.2.3", 5),
        headers={"X-Tenant": "acme"},
        cookies={"user": "ada"},
    )
    client.auth = ("ada", "secret")

    with open_stream(client, "/whoami") as stream:
        said = json.loads(stream.text)

    assert said == client.get("/whoami").json()
    assert {"acme", "user=ada", BASIC, "https", "/root"} <= {*map(str, said.values())}
    assert said["client"] == ["10.1.2.3", 5]


@pytest.mark.parametrize("auth", [("ada", "secret"), httpx.BasicAuth("ada", "secret"), Token()])
def test_an_httpx_client_is_who_it_is_in_its_other_requests(server: RedisServer, auth: Any):
    app = starlette_app(AsyncStreamManager(server.url), Hooks())
    transport = httpx.ASGITransport(app=app, root_path="/root", client=("10.1.2.3", 5))
    client = httpx.AsyncClient(
        transport=transport,
        base_url="https://test",
        auth=auth,
        headers={"X-Tenant": "acme"},
        cookies={"user": "ada"},
    )

    async def ask() -> tuple[Any, Any]:
        async with client, open_stream(client, "/whoami") as stream:
            return json.loads(stream.text), (await client.get("/whoami")).json()

    said, expected = asyncio.run(ask())

    assert said == expected
    assert said["authorization"] in (BASIC, "Bearer t")
    assert (said["client"], said["root"]) == (["10.1.2.3", 5], "/root")


def test_headers_of_the_request_win_over_those_of_the_client(server: RedisServer):
    client = TestClient(starlette_app(AsyncStreamManager(server.url), Hooks()))
    client.headers["X-Tenant"] = "acme"

    with open_stream(client, "/whoami", headers={"X-Tenant": "mine"}) as stream:
        assert json.loads(stream.text)["x-tenant"] == "mine"


# -- left while a stream is open ------------------------------------------------------------------


def in_time(work: Callable[[], None], seconds: float = 10) -> None:
    """Does it on a thread, which may hang."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as exc:
            errors.append(exc)

    thread = threading.Thread(target=run, name="in time", daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"it hangs for {seconds} s"
    if errors:
        raise errors[0]


@pytest.mark.parametrize("has_lifespan", [True, False])
def test_a_starlette_client_that_is_left_first_ends_its_streams(
    server: RedisServer, prefix: str, has_lifespan: bool
):
    streams = AsyncStreamManager(server.url, config=StreamConfig(prefix=prefix))
    app = starlette_app(streams, Hooks(), has_lifespan=has_lifespan)
    seen: list[str] = []

    def work() -> None:
        with ExitStack() as left_last:
            with TestClient(app) as client:
                stream = left_last.enter_context(open_stream(client, "/streams/room"))
                before = stream.last_event_id
                client.post("/streams/room", content="x")
                Deadline(5).until(lambda: stream.last_event_id != before, "it comes")
            assert stream.is_over
            seen.extend(event.data for event in stream.collect(1))

    in_time(work)
    assert seen == ["x"]


def test_a_starlette_client_that_is_left_first_ends_streams_of_others(server: RedisServer):
    def work() -> None:
        app = starlette_app(AsyncStreamManager(server.url), Hooks())
        with ExitStack() as left_last, TestClient(app) as client:
            left_last.enter_context(open_stream(client, "/silent", wait_open=False))

    in_time(work)


def test_what_a_flask_app_does_at_the_end_holds_up_nobody(server: RedisServer, prefix: str):
    hooks = Hooks()
    with StreamManager(server.url, config=StreamConfig(prefix=prefix)) as streams:
        client = flask_app(streams, hooks).test_client()

        def work() -> None:
            with open_stream(client, "/slow-to-close") as stream:
                assert stream.status == 200

        in_time(work)
        assert hooks.closed == 0
        hooks.release.set()
        Deadline(5).until(lambda: hooks.closed == 1, "it is done")


def test_what_a_flask_app_raises_at_the_end_is_raised_in_the_test(app: flask.Flask):
    client = app.test_client()
    with (
        pytest.raises(ZeroDivisionError, match="at the end"),
        open_stream(client, "/fails-to-close") as stream,
    ):
        assert stream.status == 200
    assert stream.is_over


def test_a_generator_around_a_flask_stream_is_left_at_its_next_piece(app: flask.Flask):
    """As some WSGI middlewares are: nobody can close a generator that runs."""
    inner = app.wsgi_app

    def middleware(environ, start_response):
        yield from inner(environ, start_response)

    app.wsgi_app = middleware  # type: ignore[method-assign]
    client = app.test_client()

    with open_stream(client, "/streams/room") as stream:
        client.post("/streams/room", data="x")
        stream.collect(1)
    assert not stream.is_over

    client.post("/streams/room", data="the next piece")
    Deadline(5).until(lambda: stream.is_over, "its thread ends")


def test_a_body_that_could_not_be_closed_is_closed_when_it_goes_on(server: RedisServer):
    hooks = Hooks()
    with StreamManager(server.url) as streams:
        client = flask_app(streams, hooks).test_client()
        with open_stream(client, "/silent", wait_open=False) as stream:
            assert stream.status == 200
        assert hooks.closed == 0

        hooks.release.set()
        Deadline(5).until(lambda: stream.is_over, "its thread ends")
        assert hooks.closed == 1


def test_memory_needs_no_server(prefix: str):
    with StreamManager("memory://", config=StreamConfig(prefix=prefix)) as streams:
        client = flask_app(streams, Hooks()).test_client()
        with open_stream(client, "/streams/room") as stream:
            client.post("/streams/room", data="x")
            assert [e.data for e in stream.collect(1)] == ["x"]


def test_what_is_no_test_client_is_refused():
    with pytest.raises(TypeError, match="not Flask"):
        open_stream(flask.Flask("app"), "/")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="ASGITransport"):
        open_stream(httpx.AsyncClient(), "/")


def test_a_coroutine_that_is_cancelled_leaves_nothing_behind(server: RedisServer, prefix: str):
    async def read_for_ever(opened: asyncio.Event, client: httpx.AsyncClient) -> None:
        async with open_stream(client, "/streams/room", timeout=60) as stream:
            opened.set()
            await stream.collect(1)

    async def test() -> list[str]:
        streams = AsyncStreamManager(server.url, config=StreamConfig(prefix=prefix))
        transport = httpx.ASGITransport(app=starlette_app(streams, Hooks()))
        client = httpx.AsyncClient(transport=transport, base_url="http://test")
        async with asyncio.timeout(20), client:
            opened = asyncio.Event()
            task = asyncio.create_task(read_for_ever(opened, client))
            await opened.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with pytest.raises(MissingEvents, match="no stream"):
                async with open_stream(client, "/nowhere") as stream:
                    await stream.collect(1)
        await streams.aclose()
        return [repr(task) for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    assert asyncio.run(test()) == []
