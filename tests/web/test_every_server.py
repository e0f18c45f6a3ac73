"""The table of docs/deploying.md: what each server does with a stream."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.deadline import Deadline
from tests.faults.rude_clients import RudeClient
from tests.readme.document import PAGES, table
from tests.sites import CONFIG, Site, app_for
from tests.web.kinds import OTHERS, TABLE
from tests.web_servers import ServerKind, WebServer, environment, http

ROWS = {row[0]: row for row in table("server", PAGES["docs/deploying.md"])}
# What the table calls them.
NAMES = {
    "gunicorn `sync`": "gunicorn-sync",
    "gunicorn `gthread`": "gunicorn-gthread",
    "gunicorn `gevent`": "gunicorn-gevent",
    "gunicorn `gevent_pywsgi`": "gunicorn-pywsgi",
    "gunicorn with `geventwebsocket`'s worker": "gunicorn-geventwebsocket",
    "gunicorn `asgi`": "gunicorn-asgi",
    "gunicorn `uvicorn_worker.UvicornWorker`": "gunicorn-uvicorn",
    "uvicorn": "uvicorn",
    "granian `--interface asgi`": "granian",
    "granian `--interface wsgi`": "granian-wsgi",
    "hypercorn, ASGI": "hypercorn",
    "hypercorn, WSGI": "hypercorn-wsgi",
    "gevent's `pywsgi`": "pywsgi",
    "cheroot": "cheroot",
    "waitress": "waitress",
    "uWSGI": "uwsgi",
    "`flask run`": "flask-run",
}
# Where each has so many threads; `flask run` makes as many as there are requests.
THREADS = {"hypercorn-wsgi": min(32, (os.cpu_count() or 1) + 4), "flask-run": None}


def test_the_table_has_them_all():
    assert ROWS.keys() == NAMES.keys()
    assert set(NAMES.values()) == TABLE.keys()


@contextlib.contextmanager
def _site(kind: ServerKind, url: str, **config: object) -> Iterator[Site]:
    prefix = f"t-{uuid.uuid4().hex[:12]}"
    env = environment(url, prefix=prefix, **{**CONFIG, **config})
    site = Site(WebServer(kind, app_for(kind), env=env).start(), url, prefix)
    try:
        yield site
    finally:
        site.close()


def _reader(site: Site) -> RudeClient:
    return RudeClient(site.server.stream_url("events", "room")).read_until(b"stream-open")


def _subscribers(site: Site) -> int:
    return int(site.server.get_json("/worker")["subscribers"])


@pytest.mark.parametrize("row", ROWS)
def test_a_page_that_has_left_is_noticed_as_the_table_says(redis_url: str, row: str):
    noticed, vanished = ROWS[row][2:4]
    silence = 30.0 if noticed == "at once" else 0.2
    times = {"keep_alive_interval": silence, "write_timeout": 0.3}
    with _site(TABLE[NAMES[row]], redis_url, **times) as site:
        _reader(site).close()

        if noticed == "never":
            Deadline(2).stays(lambda: _subscribers(site) == 1)
            return
        Deadline(5).until(lambda: _subscribers(site) == 0, every=0.1)

        with contextlib.closing(_reader(site).vanish()):
            site.streams.send_event("room", "which nobody acknowledges")

            if vanished == "in time":
                Deadline(5).until(lambda: _subscribers(site) == 0, "it is given up", every=0.1)
            else:
                Deadline(2).stays(lambda: _subscribers(site) == 1)


@pytest.mark.parametrize("row", ROWS)
def test_a_stream_takes_what_the_table_says(redis_url: str, row: str):
    name = NAMES[row]
    threads = THREADS.get(name, 4)
    takes_one = ROWS[row][1] == "a thread" and threads is not None
    with _site(TABLE[name], redis_url) as site, contextlib.ExitStack() as stack:
        for _ in range(threads if takes_one and threads else 40):
            stack.enter_context(contextlib.closing(_reader(site)))

        try:
            http.get(f"{site.server.url}/ping", timeout=1 if takes_one else 10)
        except httpx.TimeoutException:
            assert takes_one
        else:
            assert not takes_one


@pytest.mark.alone
@pytest.mark.parametrize("kind", OTHERS, ids=str)
def test_a_stopped_server_is_gone_when_the_table_says(redis_url: str, kind: ServerKind):
    (within,) = (float(row[4].split()[0]) for row in ROWS.values() if NAMES[row[0]] == kind.name)
    with _site(kind, redis_url) as site:
        for _ in range(2):
            site.browser("room").wait_open()

        assert site.server.terminate(within + 5) < within


@pytest.mark.alone
@pytest.mark.parametrize("name", ["gunicorn-pywsgi", "gunicorn-geventwebsocket"])
def test_nobody_comes_back_to_a_worker_on_its_way_out(redis_url: str, name: str):
    """pywsgi would keep the connection, and answer on it until it is killed."""
    with _site(TABLE[name], redis_url) as site, contextlib.closing(_reader(site)) as reader:
        assert b"\r\nConnection: close\r\n" in reader.received

        site.server.child.signal(signal.SIGHUP)

        reader.socket.settimeout(2)
        while reader.socket.recv(4096):
            pass


@pytest.mark.alone
def test_uwsgi_replaces_its_workers_in_the_time_that_it_was_given(redis_url: str, tmp_path: Path):
    """It waits a minute by default, and listens meanwhile."""
    touched = tmp_path / "touched"
    touched.touch()
    options = ["--touch-workers-reload", str(touched), "--worker-reload-mercy", "2"]
    kind = dataclasses.replace(TABLE["uwsgi"], arguments=[*TABLE["uwsgi"].arguments, *options])
    with _site(kind, redis_url) as site:
        before = site.server.get_json("/worker")["pid"]
        browser = site.browser("room").wait_open()

        os.utime(touched, (2**31, 2**31))

        browser.wait_for(lambda b: b.opens == 2, 8, "it is served anew")
        assert site.server.get_json("/worker")["pid"] != before
