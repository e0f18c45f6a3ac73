"""Workers that are replaced while the server stays: max_requests, and development servers."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from pathlib import Path

import httpx
import psutil
import pytest

from tests.deadline import Deadline
from tests.exactly_once import Delivery, SentLog
from tests.sites import CONFIG, Site
from tests.web_servers import KINDS, ServerKind, WebServer, environment, http

RECYCLING = {
    "gunicorn-gthread": ["--max-requests", "12"],
    "gunicorn-gevent": ["--max-requests", "12"],
    "gunicorn-asgi": ["--max-requests", "12"],
    "uvicorn": ["--limit-max-requests", "12"],
}


@pytest.mark.parametrize("kind", RECYCLING)
def test_a_worker_that_has_served_its_requests_lets_its_streams_go(
    new_site: Callable[..., Site], room: str, kind: str
):
    site = new_site(kind, workers=2, arguments=RECYCLING[kind])
    sent = SentLog()
    browsers = [site.browser(room).wait_open() for _ in range(3)]
    before = {worker.pid for worker in site.server.workers()}

    def is_replaced() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            http.get(f"{site.server.url}/ping", timeout=2)
        sent.returned(site.streams.send_event(room, str(len(sent))), str(len(sent)))
        return not before & {worker.pid for worker in site.server.workers()}

    # Requests until no worker of the first ones is left, although they held streams.
    Deadline(15).until(is_replaced, lambda: site.server.output[-3000:], every=0.02)
    sent.returned(site.streams.send_event(room, "last"), "last")

    for browser in browsers:
        browser.wait_for(lambda b: b.data[-1:] == ["last"], 10, "the last event")
        Delivery(sent, browser.events).assert_exactly_once()
        assert browser.opens >= 2
        assert browser.ends[0] != "clean"


DEVELOPMENT = [
    ServerKind(
        "flask-debug",
        ["flask", "--app", "app", "--debug", "run", "--port", "{port}"],
        is_asgi=False,
        is_up="Debugger PIN",
    ),
    ServerKind(
        "uvicorn-reload",
        ["uvicorn", "--reload", "--reload-delay", "0.1", "--port", "{port}", "app:app"],
        is_asgi=True,
        is_up="Application startup complete",
    ),
]


@pytest.mark.parametrize("kind", DEVELOPMENT, ids=str)
def test_a_development_server_reloads_with_a_tab_open(
    redis_url: str, prefix: str, room: str, tmp_path: Path, kind: ServerKind
):
    module = "starlette_app" if kind.is_asgi else "flask_app"
    source = tmp_path / "app.py"
    source.write_text(f"from tests.apps.{module} import app\n")
    server = WebServer(
        kind, "", env=environment(redis_url, prefix=prefix, **CONFIG), directory=tmp_path
    ).start()
    site = Site(server, redis_url, prefix)
    try:
        sent = SentLog()
        browser = site.browser(room).wait_open()
        sent.returned(site.streams.send_event(room, "before"), "before")
        first = server.get_json("/worker")["pid"]

        source.write_text(source.read_text() + "\n# changed\n")

        def is_another() -> bool:
            try:
                return server.get_json("/worker")["pid"] != first
            except httpx.HTTPError:
                return False

        Deadline(15).until(is_another, lambda: server.output[-3000:])
        sent.returned(site.streams.send_event(room, "after"), "after")

        browser.wait_for(2)
        Delivery(sent, browser.events).assert_exactly_once()
        assert browser.opens >= 2
        assert not psutil.pid_exists(first), "the old process has gone"
    finally:
        site.close()


def test_ctrl_c_stops_uvicorn_with_a_tab_open(new_site: Callable[..., Site], room: str):
    site = new_site("uvicorn")
    browser = site.browser(room).wait_open()

    site.server.child.signal(signal.SIGINT)
    site.server.child.wait(2)

    assert browser.wait_for(lambda b: b.ends, 5).ends[0] != "clean"


def test_memory_warns_in_a_worker_process(room: str):
    kind = KINDS["gunicorn-gthread"]
    with WebServer(
        kind, "tests.apps.flask_app:app", env=environment("memory://", prefix="x")
    ) as server:
        http.post(server.stream_url("send", room), content="x").raise_for_status()
        Deadline(5).until(lambda: "memory://" in server.output, lambda: server.output)
