"""One server of the kit's own for all its tests, and each kind of test client."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from streamy_redis.testing import RedisServer

from .sites import KINDS, Site, site_of


@pytest.fixture(scope="session")
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture(params=KINDS)
def site(request: pytest.FixtureRequest, server: RedisServer, prefix: str) -> Iterator[Site]:
    """Each kind of test client in turn."""
    with site_of(request.param, server.url, prefix=prefix, max_subscribers=2) as site:
        yield site
