"""The fixtures, in test suites of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples" / "testing"

CONFTEST = """
from streamy_redis.testing import open_stream  # before pytest has seen the plugin

import flask
import pytest
from streamy_redis import StreamManager

pytest_plugins = ["streamy_redis.testing"]

@pytest.fixture(scope="session")
def client(streamy_redis_url):
    app = flask.Flask("tested")
    streams = StreamManager()
    app.get("/", endpoint="read")(lambda: streams.get_stream("same", replay="all"))
    app.post("/", endpoint="send")(lambda: streams.send_event("same", flask.request.get_data()))
    yield app.test_client()
    streams.close()
"""

TESTS = """
import os
import pytest
import redis
from streamy_redis.testing import RedisServer, open_stream

def test_nothing_is_started_that_nobody_asked_for():
    assert "STREAMY_REDIS_URL" not in os.environ

@pytest.mark.parametrize("n", range(3))
def test_each_test_begins_empty(client, n):
    client.post("/", data=f"first {n}")
    with open_stream(client, "/") as stream:
        client.post("/", data=f"second {n}")
        assert [e.data for e in stream.collect(2)] == [f"first {n}", f"second {n}"]
    client.post("/", data="third")

def test_the_environment_names_it(streamy_redis_url, streamy_redis_server):
    assert isinstance(streamy_redis_server, RedisServer)
    assert os.environ["STREAMY_REDIS_URL"] == streamy_redis_url == streamy_redis_server.url
    with redis.Redis.from_url(streamy_redis_url) as store:
        assert store.keys() == []
"""


def run(folder: Path, *arguments: str) -> str:
    """What pytest says in a folder, with warnings as errors."""
    names = ("STREAMY_REDIS_URL", "REDIS_URL", "PYTEST_ADDOPTS", "PYTEST_XDIST_WORKER")
    env = {name: value for name, value in os.environ.items() if name not in names}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir=."]
    done = subprocess.run(
        [*command, *arguments],
        cwd=folder,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def copy(source: Path, target: Path) -> None:
    for path in source.glob("*.py"):
        (target / path.name).write_text(path.read_text())


def test_the_server_is_empty_for_each_test_and_named_in_the_environment(tmp_path: Path):
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_it.py").write_text(TESTS)

    assert "5 passed" in run(tmp_path, "-W", "error")


def test_it_can_be_named_on_the_command_line(tmp_path: Path):
    (tmp_path / "test_it.py").write_text("def test_it(streamy_redis_url): pass\n")

    assert "1 passed" in run(tmp_path, "-W", "error", "-p", "streamy_redis.testing")


@pytest.mark.parametrize(
    ("app", "modules", "passed"),
    [
        ("flask", ["test_jobs.py"], "4 passed"),
        ("fastapi", ["test_answers.py", "test_answers_async.py"], "3 passed"),
    ],
)
def test_the_examples_of_the_page_pass(tmp_path: Path, app: str, modules: list[str], passed: str):
    copy(EXAMPLES / app, tmp_path)

    # Newer ones of Starlette would rather have httpx2 than httpx.
    assert passed in run(tmp_path, "-W", "error", "-W", "ignore:Using `httpx`", *modules)


def test_the_package_itself_needs_none_of_it():
    code = "import streamy_redis, sys; print([n for n in sys.modules if 'test' in n])"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)

    assert done.stdout.strip() == "[]"
