"""Flask inside FastAPI: bridges never tell that a page has left; max_lifetime frees its thread."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace

import httpx
import pytest

from tests.deadline import Deadline
from tests.faults.rude_clients import RudeClient
from tests.sites import CONFIG
from tests.web.kinds import TABLE
from tests.web_servers import WebServer, environment, http

EXECUTOR = min(32, (os.cpu_count() or 1) + 4)
BRIDGED = replace(TABLE["uvicorn"], is_asgi=False)


@pytest.mark.parametrize(
    ("kind", "app", "threads"),
    [
        (BRIDGED, "tests.apps.wsgi_in_asgi:a2wsgi", 10),
        (BRIDGED, "tests.apps.wsgi_in_asgi:asgiref", 1),
        (BRIDGED, "tests.apps.wsgi_in_asgi:starlette", 40),
        (TABLE["hypercorn-wsgi"], "tests.apps.flask_app:app", EXECUTOR),
    ],
    ids=["a2wsgi", "asgiref", "starlette", "hypercorn"],
)
def test_a_site_lives_on_when_all_its_threads_were_taken(
    redis_url: str, prefix: str, kind: object, app: str, threads: int
):
    env = environment(redis_url, prefix=prefix, max_lifetime=3.0, **CONFIG)
    with WebServer(kind, app, env=env) as server:  # type: ignore[arg-type]
        pages = [RudeClient(server.stream_url("events", "room")) for _ in range(threads)]
        for page in pages:
            page.read_until(b"stream-open").close()
        with pytest.raises(httpx.TimeoutException):
            http.get(f"{server.url}/ping", timeout=0.5)

        Deadline(5).until(lambda: _answers(server), server.output[-2000:])


def _answers(server: WebServer) -> bool:
    with contextlib.suppress(httpx.TimeoutException):
        return http.get(f"{server.url}/ping", timeout=1).status_code == 200
    return False
