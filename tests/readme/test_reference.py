"""The code in the docstrings that docs/reference.md shows, run."""

from __future__ import annotations

import ast
import asyncio
import importlib
import inspect
import re
import types
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from flask import Flask

import streamy_redis
from streamy_redis import (
    AsyncStreamManager,
    RedisUnavailable,
    StreamConfig,
    StreamManager,
    testing,
)
from tests.servers import RedisServer

from .document import PAGES

NAMES = re.findall(
    r"^\.\. auto(?:class|exception|function):: ([\w.]+)", PAGES["docs/reference.md"], re.M
)
_LITERAL_BLOCK = re.compile(r"::\n\n((?: {4}.*\n|\n)+)")


def _code() -> Iterator[tuple[str, str]]:
    for name in NAMES:
        module, _, attribute = name.rpartition(".")
        shown = getattr(importlib.import_module(module), attribute)
        members = [member for key, member in vars(shown).items() if not key.startswith("_")]
        for each in (shown, *members):
            text = f"{inspect.getdoc(each) or ''}\n"
            for block in _LITERAL_BLOCK.findall(text):
                yield name, inspect.cleandoc(f"\n{block}")


CODE = list(_code())
OF_TESTING = [each for each in CODE if each[0].startswith("streamy_redis.testing.")]
OTHERS = [each for each in CODE if each not in OF_TESTING]


class Model:
    """A model of either kind."""

    def generate(self, prompt: str) -> Words:
        return Words()


class Words:
    def __iter__(self) -> Iterator[str]:
        return iter(["once", "more"])

    async def __aiter__(self) -> AsyncIterator[str]:
        for word in self:
            yield word


@pytest.mark.parametrize(("name", "code"), OTHERS, ids=[name for name, _ in OTHERS])
def test_the_code_of_a_docstring_sends(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, name: str, code: str
):
    monkeypatch.setenv("STREAMY_REDIS_URL", redis_server.url)
    run = compile(code, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    around = {**vars(streamy_redis), "model": Model(), "prompt": "Tell me."}

    if "async" in name.lower():
        asyncio.run(run_async(run, around))
    else:
        names: dict[str, Any] = {**around, "app": Flask(__name__), "streams": StreamManager()}
        exec(run, names)
        names["streams"].close()

    with StreamManager() as streams:
        assert any(streams.info(stream_id).exists for stream_id in ("room", "answer 7"))


async def run_async(run: types.CodeType, around: dict[str, Any]) -> None:
    names = {**around, "app": FastAPI(), "streams": AsyncStreamManager()}
    names["AsyncStreamManager"] = AsyncStreamManager
    await eval(run, names)
    await names["streams"].aclose()


def jobs_app(streams: StreamManager) -> Flask:
    app = Flask(__name__)

    @app.get("/events/<job>")
    def events(job: str) -> Any:
        return streams.get_stream(job)

    @app.post("/jobs")
    @app.post("/jobs/<int:number>")
    def run(number: int = 1) -> list[str]:
        return streams.send_events(f"job-{number}", ["begun", "done"])

    @app.errorhandler(RedisUnavailable)
    def redis_unavailable(error: RedisUnavailable) -> tuple[str, int]:
        return "", 503

    return app


@pytest.mark.parametrize(("name", "code"), OF_TESTING, ids=[name for name, _ in OF_TESTING])
def test_the_code_of_a_docstring_for_tests_runs(name: str, code: str):
    config = StreamConfig(send_timeout=0.5)
    with testing.RedisServer() as server, StreamManager(server.url, config=config) as streams:
        client = jobs_app(streams).test_client()
        around = {**vars(streamy_redis), **vars(testing)}

        exec(code, {**around, "client": client, "server": server})


def test_the_classes_show_how_they_are_used():
    with_code = {name.rpartition(".")[2] for name, _ in CODE}

    assert {"StreamManager", "AsyncStreamManager", "Writer", "open_stream"} <= with_code
