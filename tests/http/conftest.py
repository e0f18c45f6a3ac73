"""Every kind of server, started once, with a manager beside it that sends."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import SharedServers
from tests.sites import CONFIG, Site, app_for
from tests.web_servers import KINDS, WebServer, environment


@pytest.fixture(scope="session")
def shared_sites(shared_servers: SharedServers) -> Iterator[Callable[[str], Site]]:
    sites: dict[str, Site] = {}

    def site(kind_name: str) -> Site:
        if kind_name not in sites:
            kind = KINDS[kind_name]
            url = shared_servers.url("valkey")
            prefix = f"t-{uuid.uuid4().hex[:12]}"
            # A sync worker serves one stream and nothing else.
            server = WebServer(
                kind,
                app_for(kind),
                workers=5 if kind.streams == 1 else 2,
                env=environment(url, prefix=prefix, **CONFIG),
            ).start()
            sites[kind_name] = Site(server, url, prefix)
        return sites[kind_name]

    yield site
    for each in sites.values():
        each.close()


# gunicorn's uvicorn worker is uvicorn: only how it stops is its own.
@pytest.fixture(params=[kind for kind in KINDS if kind != "gunicorn-uvicorn"])
def site(request: pytest.FixtureRequest, shared_sites: Callable[[str], Site]) -> Iterator[Site]:
    """Each kind of server in turn; two workers, so that who sends is not who serves."""
    site = shared_sites(request.param)
    yield site
    site.leave()


@pytest.fixture(params=["gunicorn-gthread", "gunicorn-gevent", "uvicorn", "hypercorn"])
def main_site(
    request: pytest.FixtureRequest, shared_sites: Callable[[str], Site]
) -> Iterator[Site]:
    """The kinds that differ most, for tests that take seconds."""
    site = shared_sites(request.param)
    yield site
    site.leave()
