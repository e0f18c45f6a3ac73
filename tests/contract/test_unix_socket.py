"""Redis at a unix socket, as where it runs on the machine of the application."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
import redis.asyncio

from streamy_redis import AsyncStreamManager, StreamManager
from tests.servers import RedisServer

from .conftest import Shell


@pytest.fixture(scope="module")
def path() -> Iterator[str]:
    """Where a server listens; its own folder's name may be too long for a socket."""
    with tempfile.TemporaryDirectory(prefix="streamy-") as folder:
        path = f"{folder}/redis"
        with RedisServer(arguments=("--unixsocket", path)):
            assert Path(path).is_socket()
            yield path


@pytest.mark.one_server
def test_what_is_sent_around_a_killed_connection_arrives(shell: Shell, path: str):
    url = f"unix://{path}?db=0"
    streams = shell.manager(url)
    reader = shell.reader(streams, "room")
    ids = [streams.send_event("room", "before")]
    reader.wait_for(1)

    with contextlib.closing(redis.Redis.from_url(url)) as store:
        # Its listener, its reader of the log, its sender, and this one.
        assert all(path in client["addr"] for client in store.client_list())
        assert store.client_kill_filter(_type="pubsub") == 1
    ids.append(streams.send_event("room", "while nobody listens"))
    # As soon as after any killed connection, long before the position check.
    reader.wait_for(2, timeout=1)
    ids.append(streams.send_event("room", "after"))

    reader.wait_for(3)
    assert (reader.ids, reader.kinds) == (ids, ["event"] * 3)
    assert reader.gets_no_more()


def test_a_client_that_is_given_leads_there(path: str):
    with redis.Redis(unix_socket_path=path) as client, StreamManager(client) as streams:
        assert streams.send_event("room", "x")


def test_an_asyncio_client_that_is_given_leads_there(path: str):
    async def send() -> str:
        async with (
            redis.asyncio.Redis(unix_socket_path=path) as client,
            AsyncStreamManager(client) as streams,
        ):
            return await streams.send_event("room", "x")

    assert asyncio.run(send())
