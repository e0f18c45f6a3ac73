"""demo: one command and a page, in an installed package."""

from __future__ import annotations

import re
import signal
import socket
import subprocess

import pytest

from tests.browser import EventSource
from tests.integrations.foreign import assert_takes_its_own_pages_only
from tests.web_servers import http

from .conftest import VARIABLES, Commands


def address(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    found = re.search(r"http://127\.0\.0\.1:\d+/", process.stdout.readline())
    assert found
    return found[0]


@pytest.mark.parametrize("source", ["redis", "memory"])
def test_serves_a_page_and_its_stream_and_stops_on_ctrl_c(commands: Commands, source: str):
    # Without a Redis in the environment it runs in memory.
    process = commands.start(
        "demo", "--port", "0", variables=VARIABLES if source == "memory" else None
    )
    url = address(process)
    assert process.stdout
    assert ("memory://" in process.stdout.readline()) == (source == "memory")

    assert "new EventSource" in http.get(url).text
    with EventSource(f"{url}stream") as browser:
        browser.wait_open().wait_for(lambda b: b.of_type("tick"), 10, "a tick")
        http.post(f"{url}send", content="hello").raise_for_status()
        browser.wait_for(lambda b: "hello" in b.data, 10, "what was sent")
        assert http.post(f"{url}send", content=b"\xff").text.startswith("data must be UTF-8")
        if source == "redis":
            assert commands.call("send", "demo", "from a shell").returncode == 0
            browser.wait_for(lambda b: "from a shell" in b.data, 10, "what a shell sent")

    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


def test_only_its_own_page_may_change_anything(commands: Commands):
    process = commands.start("demo", "--port", "0", variables=VARIABLES)
    url = address(process)

    for path in ("/send", "/end", "/anew"):
        assert_takes_its_own_pages_only(url, "POST", path, status=200)


def test_a_port_that_is_taken_is_one_line(commands: Commands):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        failed = commands.call("demo", "--port", port)

    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr.startswith(f"Error: port {port} can't be used")
    assert len(failed.stderr.splitlines()) == 1
