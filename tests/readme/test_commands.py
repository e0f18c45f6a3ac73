"""What the pages show of shells, run line by line."""

from __future__ import annotations

import importlib.metadata
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from streamy_redis import StreamManager
from tests.browser import EventSource
from tests.deadline import Deadline
from tests.servers import RedisServer

from .document import EXAMPLES, PAGES, Block, blocks, commands, table
from .example import Example, Shell, shows

QUICK_START = PAGES["docs/quick-start.md"]
EVERYWHERE = [line for text in PAGES.values() for line in commands(text)]
INSTALLS = sorted({line for line in EVERYWHERE if line.startswith("pip install ")})
# Those that are ours.
VARIABLES = sorted(
    {line.split()[1] for line in EVERYWHERE if re.match("export (STREAMY|REDIS)_", line)}
)
# The README's own are started by test_examples.
SERVERS = sorted(
    {
        line
        for name in ("docs/quick-start.md", "docs/deploying.md")
        for line in commands(PAGES[name])
        if re.match("(gunicorn|uvicorn|granian|hypercorn) ", line) and "--pid" not in line
    }
)
# What differs from run to run: event ids, positions, nonces, pauses.
DIFFERENT = re.compile(r"\d{16}-(\d+)(-[0-9a-f]{8})?|[0-9a-f]{24}|(?<=retry: )\d+")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has copied from the pages."""
    for path in EXAMPLES.glob("*.py"):
        shutil.copy(path, tmp_path)
    shutil.copytree(EXAMPLES / "static", tmp_path / "static")
    shutil.copy(EXAMPLES / "deploy" / "gunicorn.conf.py", tmp_path)
    return tmp_path


@pytest.fixture
def shell(tmp_path: Path, redis_server: RedisServer) -> Iterator[Shell]:
    with Shell(tmp_path, redis_server.url) as shell:
        yield shell


def without_what_differs(text: str) -> str:
    return DIFFERENT.sub(r"\1", text)


def block_with(beginning: str, page: str) -> Block:
    [found] = [block for block in blocks(PAGES[page]) if block.text.startswith(beginning)]
    return found


@pytest.mark.parametrize("line", INSTALLS)
def test_an_install_command_names_what_there_is(line: str):
    for word in shlex.split(line)[2:]:
        requirement = Requirement(word)
        about = importlib.metadata.metadata(requirement.name)

        assert requirement.extras <= set(about.get_all("Provides-Extra") or [])


@pytest.mark.parametrize("setting", VARIABLES)
def test_a_variable_that_is_set_is_read(setting: str):
    name, _, url = setting.partition("=")

    assert name in {
        row[0].strip("`") for row in table("environment variable", PAGES["docs/configuration.md"])
    }
    with StreamManager(url):
        pass


def test_the_limit_can_be_raised(shell: Shell):
    [line] = [line for line in commands(PAGES["docs/deploying.md"]) if "ulimit" in line]

    before, after = shell.run(f"ulimit -Hn; {line}; ulimit -Sn").split()

    assert after == before


@pytest.mark.parametrize("line", SERVERS)
def test_a_server_starts_as_shown(line: str, folder: Path, redis_server: RedisServer):
    app = line.split()[-1].removesuffix(":app")
    if app != "flask_app" or " -" in line:
        (folder / "gunicorn.conf.py").unlink()

    with (
        Example(app, redis_server.url, line=line, directory=folder) as site,
        EventSource(site.stream) as browser,
        StreamManager(redis_server.url) as streams,
    ):
        browser.wait_open()
        streams.send_event("report-7", "hello")

        assert browser.wait_for(1).data == ["hello"]


def test_the_quick_start_works_as_it_is_written(page: Any, folder: Path, redis_server: RedisServer):
    (folder / "gunicorn.conf.py").unlink()
    lines = iter(commands(QUICK_START))
    [(_, address)] = re.findall("<(http://127.0.0.1:8000)(.+)>", QUICK_START)

    def next_line(beginning: str) -> str:
        return next(line for line in lines if line.startswith(beginning))

    with Shell(folder, redis_server.url) as shell:
        shell.run(next_line("streamy-redis doctor"))
        server = next_line("gunicorn ")
        with Example("flask_app", redis_server.url, line=server, directory=folder) as site:
            with page.expect_response("**/events/**"):
                page.goto(f"{site.url}{address}")

            shell.run(next_line("python job.py"))
            shows(page, 100)
            shell.run(next_line("streamy-redis send"))
            shows(page, 40)

            before = {worker.pid for worker in site.workers()}
            shell.run(next_line("kill "))
            shell.run(next_line("streamy-redis send"))
            shows(page, 60)
            assert not before & {worker.pid for worker in site.workers()}

            shell.run(next_line("streamy-redis end"))
            page.wait_for_function("source.readyState === EventSource.CLOSED")

        server = next_line("uvicorn ")
        shell.run(next_line("streamy-redis delete"))
        with Example("fastapi_site", redis_server.url, line=server, directory=folder) as site:
            with page.expect_response("**/events/**"):
                page.goto(f"{site.url}{address}")

            shell.run(next_line("python job.py"))
            shows(page, 100)


def test_the_command_line_does_what_is_shown(
    shell: Shell, tmp_path: Path, redis_server: RedisServer
):
    page = "docs/command-line.md"
    lines = block_with("streamy-redis send room", page).text.splitlines()
    (tmp_path / "app.log").write_text("started\n")
    (tmp_path / "lines.txt").write_text("1\n2\n3\n")
    with StreamManager(redis_server.url) as streams:
        first = streams.send_event("room", "from before")
        listeners = []
        for line in lines:
            if " listen " in line:
                listener = shell.start(re.sub(r"\d{16}-\S+", first, line))
                Deadline(10).until(lambda log=listener: "hello" in log.output, listener.output)
                listeners.append(listener)
            elif line.startswith("tail -f "):
                shell.start(line)
                Deadline(10).until(lambda: streams.info("log").length == 1, "a line is sent")
            else:
                printed = shell.run(line)
                if " info " in line:
                    assert '"ended": true' in printed

        assert [listener.wait(10) for listener in listeners] == [0, 0]
        assert streams.info("import").length == 3
        assert not streams.info("room").exists
    for listener, beginning in zip(listeners, ("1795", "{"), strict=True):
        [shown] = [b for b in blocks(PAGES[page]) if b.text.startswith(beginning)]
        printed = "".join(listener.output.splitlines(keepends=True)[-2:])
        assert without_what_differs(printed) == without_what_differs(shown.text)


def test_what_lies_in_redis_and_reaches_the_browser_is_as_shown(
    folder: Path, redis_server: RedisServer
):
    send, more, look, get = commands(PAGES["docs/how-it-works.md"])
    page = "docs/how-it-works.md"
    with (
        Example("flask_app", redis_server.url) as site,
        Shell(folder, redis_server.url, site) as shell,
    ):
        first = shell.run(send).strip()
        shell.run(more)

        lies_there = shell.run(look)
        # curl says that its time is over.
        received = shell.run(re.sub(r"\d{16}-\S+(?=')", first, get), status=28)

    shown = block_with("1795247419210110-1\nframe", page).text
    assert without_what_differs(lies_there) == without_what_differs(shown)
    shown = block_with("retry: ", page).text
    # The blank line that ends an event ends the block here.
    assert without_what_differs(received).rstrip() == without_what_differs(shown).rstrip()
