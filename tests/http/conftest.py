"""Every kind of server, started once, with a manager beside it that sends."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import SharedServers
from tests.sites import CONFIG, Site, app_for
from tests.web_servers import KINDS, WebServer, environment

WITHOUT_HANDOVER = "-without-handover"


@pytest.fixture(scope="session")
def shared_sites(shared_servers: SharedServers) -> Iterator[Callable[[str], Site]]:
    sites: dict[str, Site] = {}

    def site(name: str) -> Site:
        if name not in sites:
            kind = KINDS[name.removesuffix(WITHOUT_HANDOVER)]
            config = {**CONFIG, "handover": not name.endswith(WITHOUT_HANDOVER)}
            url = shared_servers.url("valkey")
            prefix = f"t-{uuid.uuid4().hex[:12]}"
            server = WebServer(
                kind, app_for(kind), workers=2, env=environment(url, prefix=prefix, **config)
            ).start()
            sites[name] = Site(server, url, prefix)
        return sites[name]

    yield site
    for each in sites.values():
        each.close()


# gunicorn's uvicorn worker is uvicorn: only how it stops is its own. And a thread a stream, as on
# every WSGI server that shows no socket.
@pytest.fixture(
    params=[
        *(kind for kind in KINDS if kind != "gunicorn-uvicorn"),
        f"gunicorn-gthread{WITHOUT_HANDOVER}",
    ]
)
def site(request: pytest.FixtureRequest, shared_sites: Callable[[str], Site]) -> Iterator[Site]:
    """Each kind of server in turn; two workers, so that who sends is not who serves."""
    site = shared_sites(request.param)
    yield site
    site.leave()


@pytest.fixture(params=["gunicorn-gthread", "gunicorn-gevent", "uvicorn", "hypercorn"])
def main_site(
    request: pytest.FixtureRequest, shared_sites: Callable[[str], Site]
) -> Iterator[Site]:
    """The kinds that differ most, for tests that take seconds or have many cases."""
    site = shared_sites(request.param)
    yield site
    site.leave()
