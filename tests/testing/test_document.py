"""docs/testing.md shows what there is; its examples are run by test_plugin.py."""

from __future__ import annotations

import inspect
import re

import pytest

from streamy_redis.testing import AsyncEventStream, EventStream, RedisServer, open_stream
from streamy_redis.testing.response import Response
from tests.readme.document import PAGES, blocks, table

PAGE = PAGES["docs/testing.md"]


def names(header: str) -> set[str]:
    cells = [row[0] for row in table(header, PAGE)]
    return {name for cell in cells for name in re.findall(r"`(?:with )?(\w+)", cell)}


def public(*kinds: type) -> set[str]:
    members = {name for kind in kinds for name, _ in inspect.getmembers(kind)}
    return {name for name in members if not name.startswith("_")}


def test_all_of_a_stream_is_shown():
    assert names("of the stream") == public(EventStream, AsyncEventStream)


def test_all_faults_are_shown():
    assert names("of `streamy_redis_server`") == public(RedisServer)


@pytest.mark.parametrize(
    "function", [open_stream, EventStream.collect, AsyncEventStream.collect_to_end]
)
def test_a_signature_is_as_shown(function):
    found = inspect.signature(function)
    bare = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name != "self"]
    text = str(found.replace(parameters=bare, return_annotation=found.empty)).replace("'", '"')

    assert f"`{function.__name__}{text}`" in PAGE


def test_what_is_missing_is_told_as_shown():
    response = Response("GET /events/job-1")
    response.receive_head(200, [("Content-Type", "text/event-stream; charset=utf-8")])
    response.receive_body(b"event: stream-open\ndata: {}\n\nid: 1795247419210110-1-98b83011\n")
    response.receive_body(b'event: progress\ndata: {"percent":10}\n\n')

    [shown] = [block.text for block in blocks(PAGE) if block.language == "text"]
    assert f"{response.missing('1 of 3 events came within 2 s')}\n" == shown
