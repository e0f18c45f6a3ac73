"""The manager of the other kind of framework is an error that names the right one."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import anyio.to_thread
import pytest
from fastapi import FastAPI
from flask import Flask, Response
from starlette.applications import Starlette
from starlette.routing import Route
from werkzeug.test import EnvironBuilder, run_wsgi_app

from streamy_redis import AsyncStreamManager, StreamManager

with warnings.catch_warnings():
    # Newer ones would rather have httpx2 than httpx.
    warnings.simplefilter("ignore")
    from starlette.testclient import TestClient


@pytest.fixture
def streams() -> StreamManager:
    return StreamManager("memory://")


@pytest.fixture
def async_streams() -> AsyncStreamManager:
    return AsyncStreamManager("memory://")


def starlette_of(endpoint: Callable[..., Any]) -> Starlette:
    return Starlette(routes=[Route("/", endpoint)])


def fastapi_of(endpoint: Callable[..., Any]) -> FastAPI:
    app = FastAPI()
    app.add_api_route("/", endpoint, response_model=None)
    return app


@pytest.mark.parametrize("app_of", [starlette_of, fastapi_of])
@pytest.mark.parametrize("is_coroutine", [True, False])
def test_a_manager_for_threads_in_an_asgi_endpoint(
    streams: StreamManager, app_of: Callable[..., Any], is_coroutine: bool
):
    def endpoint(request: Any = None) -> Any:
        return streams.get_stream("room")

    async def coroutine(request: Any = None) -> Any:
        return streams.get_stream("room")

    client = TestClient(app_of(coroutine if is_coroutine else endpoint))

    with pytest.raises(RuntimeError, match="use AsyncStreamManager"):
        client.get("/")


def test_a_response_for_threads_that_is_served_by_asgi(streams: StreamManager):
    response: Any = streams.get_stream("room")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await response(scope, receive, send)

    with pytest.raises(RuntimeError, match="use AsyncStreamManager"):
        TestClient(app).get("/")


def test_a_manager_for_asyncio_in_a_flask_view(async_streams: AsyncStreamManager):
    app = Flask(__name__)
    app.testing = True
    app.add_url_rule("/", view_func=lambda: async_streams.get_stream("room"))

    with pytest.raises(RuntimeError, match="use StreamManager"):
        app.test_client().get("/")


def test_a_response_for_asyncio_that_is_served_by_wsgi(async_streams: AsyncStreamManager):
    response: Any = async_streams.get_stream("room")

    with pytest.raises(RuntimeError, match="use StreamManager"):
        run_wsgi_app(response, EnvironBuilder("/").get_environ())


def test_flask_in_an_event_loop_or_a_thread_of_one_is_still_flask(streams: StreamManager):
    streams.end_stream("room")
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: streams.get_stream("room"))

    async def answers() -> Iterable[Response]:
        client = app.test_client()
        return [client.get("/"), await anyio.to_thread.run_sync(client.get, "/")]

    assert [each.status_code for each in asyncio.run(answers())] == [200, 200]


def test_an_extension_s_flask_context_makes_no_view(async_streams: AsyncStreamManager):
    with Flask(__name__).app_context():
        async_streams.get_stream("room")
