"""pytest fixtures: an embedded server for the session, empty for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .server import RedisServer

__all__ = ["streamy_redis_server", "streamy_redis_url"]


@pytest.fixture(scope="session")
def streamy_redis_server() -> Iterator[RedisServer]:
    """A Redis of this session's own, and the faults it can play; empty at the start of each test.

    As long as it runs, STREAMY_REDIS_URL names it: managers that look there need nothing else.
    """
    with RedisServer() as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("STREAMY_REDIS_URL", server.url)
        yield server


@pytest.fixture(scope="session")
def streamy_redis_url(streamy_redis_server: RedisServer) -> str:
    """The URL of ``streamy_redis_server``, the same for the whole session."""
    return streamy_redis_server.url


@pytest.fixture(autouse=True)
def _streamy_redis_is_empty(request: pytest.FixtureRequest) -> None:
    """Of tests that use the server, if only through other fixtures."""
    if "streamy_redis_server" in request.fixturenames:
        server: RedisServer = request.getfixturevalue("streamy_redis_server")
        server.lose_history()
