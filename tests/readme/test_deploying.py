"""What docs/deploying.md says: nginx, six connections, settings, memory in Redis."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gunicorn.config
import pytest
from uvicorn.main import main as uvicorn_command

from streamy_redis import StreamManager
from streamy_redis.core.gap import Gap
from tests.certificate import Certificate
from tests.child import Child
from tests.deadline import Deadline
from tests.ports import free_port
from tests.servers import RedisServer
from tests.tools import need

from .document import EXAMPLES, PAGES, commands, table
from .example import Example, Shell, run_job, shows

PAGE = PAGES["docs/deploying.md"]
# More than the six connections that a browser opens to one origin by HTTP/1.1.
OPEN_EIGHT = """() => {
    window.opened = new Set();
    window.got = new Set();
    window.sources = Array.from({length: 8}, (_, n) => {
        const source = new EventSource("/events/report-7");
        source.addEventListener("stream-open", () => opened.add(n));
        source.addEventListener("progress", () => got.add(n));
        return source;
    });
}"""
OPEN = "opened.size"
STREAMS = "**/events/**"


class Nginx:
    """nginx with docs/examples/deploy/nginx.conf, in front of a server."""

    def __init__(self, upstream: int, folder: Path) -> None:
        self.port = free_port()
        self.url = f"https://localhost:{self.port}"
        made = Certificate.made_in(folder, "localhost")
        shown = (EXAMPLES / "deploy" / "nginx.conf").read_text()
        for ours, here in (
            ("127.0.0.1:8000", f"127.0.0.1:{upstream}"),
            ("listen 443", f"listen 127.0.0.1:{self.port}"),
            ("/etc/ssl/example.org.pem", made.certificate),
            ("/etc/ssl/example.org.key", made.key),
        ):
            assert ours in shown
            shown = shown.replace(ours, here)
        (folder / "site.conf").write_text(shown)
        paths = "".join(
            f"{kind}_temp_path {folder}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        (folder / "nginx.conf").write_text(
            f"daemon off; master_process off; pid {folder}/pid; error_log stderr; events {{}}\n"
            f"http {{ access_log off; {paths} include {folder}/site.conf; }}\n"
        )
        self._command = [need("nginx"), "-c", f"{folder}/nginx.conf", "-p", str(folder)]
        self._log = folder / "log"

    def check(self) -> str:
        """What `nginx -t` says of it, but for what the page says of nginx 1.25.1 and newer."""
        done = subprocess.run([*self._command, "-t"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return re.sub(r'.*the "listen ... http2" directive is deprecated.*\n', "", done.stderr)

    def _answers(self) -> bool:
        assert self._child.running, self._child.output
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def __enter__(self) -> Nginx:
        self._child = Child(self._command, self._log)
        Deadline(10).until(self._answers, lambda: f"nginx is up\n{self._child.output}")
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._child.stop()


@pytest.fixture
def site(redis_server: RedisServer) -> Iterator[Example]:
    with Example("flask_app", redis_server.url) as site:
        yield site


def test_a_browser_opens_six_streams_by_http_1(page: Any, site: Example):
    page.goto(f"{site.url}/static/page.html")
    page.evaluate("source.close()")

    page.evaluate(OPEN_EIGHT)

    page.wait_for_function(f"{OPEN} === 6")
    Deadline(0.5).stays(lambda: page.evaluate(OPEN) == 6, "no more than six", every=0.1)


def test_by_http_2_through_nginx_it_opens_as_many_as_it_likes(
    page: Any, site: Example, redis_server: RedisServer, tmp_path: Path
):
    nginx = Nginx(site.port, tmp_path)
    assert "warn" not in nginx.check()
    with nginx:
        page.goto(f"{nginx.url}/static/page.html")
        how = "performance.getEntriesByType('navigation')[0].nextHopProtocol"
        assert page.evaluate(how) == "h2"

        page.evaluate(OPEN_EIGHT)
        page.wait_for_function(f"{OPEN} === 8")
        run_job(redis_server.url, tmp_path / "job.log")

        shows(page, 100)
        page.wait_for_function("got.size === 8")


def test_behind_nginx_pages_outlast_the_absence_of_every_server(
    page: Any, site: Example, redis_server: RedisServer, tmp_path: Path
):
    with Nginx(site.port, tmp_path) as nginx:
        with page.expect_response(STREAMS):
            page.goto(f"{nginx.url}/static/page.html")
        with page.expect_response(STREAMS) as answered:
            site.terminate(within=5)
        assert answered.value.status == 200
        assert page.request.get(f"{nginx.url}/static/page.html").status == 502

        site.start()
        run_job(redis_server.url, tmp_path / "job.log")

        shows(page, 100)


def test_one_stream_is_enough_for_all_tabs(
    context: Any, site: Example, redis_server: RedisServer, tmp_path: Path
):
    with StreamManager(redis_server.url) as streams:
        first = context.new_page()
        first.goto(f"{site.url}/static/shared.html")

        def shows_what_is_sent() -> bool:
            # Its worker opens the stream some time after the page is there.
            streams.send_event("report-7", {"percent": 20}, "progress")
            return bool(first.evaluate("bar.value === 20"))

        Deadline(20).until(shows_what_is_sent, "the worker has opened the stream", every=0.1)

        # With a stream for each, the seventh could not even be loaded.
        tabs = [first, *(context.new_page() for _ in range(6))]
        for tab in tabs[1:]:
            tab.goto(f"{site.url}/static/shared.html")
            shows(tab, 20)
        run_job(redis_server.url, tmp_path / "job.log")

        for tab in tabs:
            shows(tab, 100)


def test_the_settings_are_those_of_the_servers():
    shown = re.findall(r"^\| `--([\w-]+)` \|", PAGE, re.MULTILINE)
    of_gunicorn = {
        option.removeprefix("--")
        for setting in gunicorn.config.KNOWN_SETTINGS
        for option in setting.cli or []
    }
    of_uvicorn = {
        option.removeprefix("--") for each in uvicorn_command.params for option in each.opts
    }
    [first, second] = [
        {row[0].strip("`-") for row in table(header, PAGE)}
        for header in ("setting", "setting of uvicorn")
    ]

    assert first <= of_gunicorn
    assert second <= of_uvicorn
    assert first | second == set(shown)


@pytest.mark.parametrize("size", [20, 100, 1000])
def test_a_history_takes_the_memory_that_is_told(any_redis_url: str, prefix: str, size: int):
    [line] = [line for line in commands(PAGE) if line.startswith("redis-cli ")]
    assert "streamy:{room}:log" in line
    [(more, least)] = re.findall(r"its data, and (\d+) bytes; a stream at least (\d) kB", PAGE)
    most = 1000 * (1.2 * size + int(more))
    shell = Shell(EXAMPLES, any_redis_url)
    with StreamManager(any_redis_url) as streams:
        streams.delete_stream("room")
        streams.send_event("room", "x" * size)
        empty = int(shell.run(line))
        streams.send_events("room", ["x" * size] * 999)
        full = int(shell.run(line))
        streams.delete_stream("room")

    assert 0.8 * 1000 * int(least) < empty < 1000 * int(least)
    assert 0.75 * most < full < most


def test_the_reasons_of_a_reset_are_all_told():
    shown = {row[0].strip("`") for row in table("reason", PAGES["docs/how-it-works.md"])}

    assert shown == set(Gap)
