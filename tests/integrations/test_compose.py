"""The compose files and the Dockerfile: parsed, built as far as it goes, and all of it booted."""

from __future__ import annotations

import copy
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.browser import EventSource
from tests.child import new_folder
from tests.deadline import Deadline
from tests.event_stream import MessageEvent
from tests.exactly_once import Delivery, position_of
from tests.faults.senders import Sender
from tests.nginx import SHIPPED
from tests.tools import need
from tests.web_servers import ROOT, http

from .compose_stack import DEVELOPMENT, PRODUCTION, ComposeStack, Service, compose_file
from .image import Image, instructions
from .witness import Witness

SERVICES: dict[str, dict[str, Any]] = compose_file(PRODUCTION)["services"]
DEVELOPED: dict[str, dict[str, Any]] = compose_file(DEVELOPMENT)["services"]
SOURCES = ("integrations", "streamy_redis")
OURS = {name: each for name, each in SERVICES.items() if "build" in each}


# The files


def test_the_compose_files_follow_the_specification():
    checker = Path(sys.executable).with_name("check-jsonschema")
    arguments = ["--builtin-schema", "vendor.compose-spec", *DEVELOPMENT]

    done = subprocess.run([checker, *arguments], cwd=ROOT, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_hardened_watched_and_started_again(name: str):
    service = SERVICES[name]

    assert service["restart"] == "unless-stopped"
    assert service["healthcheck"]["test"]
    assert service["init"] is True
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    # Those of our image have its user.
    assert "build" in service or service["user"] != "root"
    assert "build" in service or re.search(r":\d+(-alpine)?$", service["image"])
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_image_is_pinned_small_and_not_root_s():
    of = {name: [a for n, a in instructions() if n == name] for name, _ in instructions()}
    build, final = (base.split()[0] for base in of["FROM"])

    assert build == final
    assert re.fullmatch(r"python:3\.\d+-slim", final)
    assert of["USER"] == ["app"]
    assert json.loads(of["CMD"][0]) == SERVICES["flask-1"]["command"]
    assert [a.split()[-1] for a in of["RUN"] if a.startswith("useradd ")] == ["app"]
    # What the final stage takes from the one that has pip's cache and the source.
    assert [a for a in of["COPY"] if "--from" in a] == ["--from=build /opt/venv /opt/venv"]
    [install, _] = [a for a in of["RUN"] if a.startswith("pip ")]
    requirements = shlex.split(install.partition(" install ")[2])
    assert all(re.fullmatch(r"[\w\[\]]+==\d+\.\*", each) for each in requirements)


def copied() -> list[str]:
    """What the Dockerfile copies from the repository."""
    lines = [a.split()[:-1] for name, a in instructions() if name == "COPY" and "--from" not in a]
    return [source for line in lines for source in line]


def test_the_build_may_copy_what_it_copies_and_nothing_else():
    ignored, *rest = [
        line
        for line in (ROOT / ".dockerignore").read_text().splitlines()
        if not line.startswith("#")
    ]

    assert ignored == "*"
    assert {line for line in rest if line.startswith("!")} == {f"!{each}" for each in copied()}


def test_nginx_finds_a_container_that_took_the_place_of_a_replica():
    [network] = compose_file(PRODUCTION)["networks"]["default"]["ipam"]["config"]
    all_of_them, given = ip_network(network["subnet"]), ip_network(network["ip_range"])
    fixed = {
        name: ip_address(each["networks"]["default"]["ipv4_address"])
        for name, each in SERVICES.items()
        if "networks" in each
    }

    assert list(fixed) == re.findall(r"server ([\w-]+):8000 ", SHIPPED.read_text())
    assert len(set(fixed.values())) == len(fixed)
    for address in fixed.values():
        assert address in all_of_them
        # Neither another container has it nor the host.
        assert address not in given
        assert address != all_of_them[1]


@pytest.mark.parametrize("name", SERVICES)
def test_in_development_a_service_differs_by_its_sources_only(name: str):
    service = copy.deepcopy(DEVELOPED[name])

    if name in OURS:
        assert service.pop("volumes") == [f"./{each}:/app/{each}:ro" for each in SOURCES]
        assert service["environment"].pop("PYTHONPATH") == "/app"
        # What runs for a moment only needs nobody who watches.
        assert ("watchfiles" in str(service.pop("entrypoint", None))) == (name != "cron")
    assert service == SERVICES[name]


# The services

NEEDED = ("nginx", "redis-server", "redis-cli", "curl")
REPLICAS = ("flask-1", "flask-2")


@pytest.fixture(scope="module")
def programs() -> None:
    """What the services and their health checks run."""
    for program in NEEDED:
        need(program)


@pytest.fixture(scope="module")
def image() -> Image:
    """What the Dockerfile has built."""
    return Image(new_folder("image") / "root").build()


@pytest.fixture(scope="module")
def stack(programs: None, image: Image) -> Iterator[ComposeStack]:
    """All services, each healthy."""
    stack = ComposeStack(image, new_folder("compose"), files=PRODUCTION, sources=ROOT)
    try:
        yield stack.start()
    finally:
        stack.close()


def replica_of(stack: ComposeStack, page: EventSource) -> str:
    """The one that serves a page, which has the worker's name in its cookie."""
    [pid] = re.findall(r"gunicorn-flask\.(\d+)", page.header("set-cookie") or "")
    [name] = [
        name for name in REPLICAS if int(pid) in {p.pid for p in stack[name].child.children()}
    ]
    return name


def pages_on_both(stack: ComposeStack, stream_id: str, opened: ExitStack) -> list[EventSource]:
    """Two pages behind nginx, one on each replica."""
    pages: dict[str, EventSource] = {}
    for number in range(20):
        url = f"{stack['nginx'].url}/stream/{number}?stream={stream_id}"
        page = opened.enter_context(EventSource(url)).wait_open()
        pages[replica_of(stack, page)] = page
        if len(pages) == len(REPLICAS):
            return list(pages.values())
    raise AssertionError(f"nginx asks only one of them: {list(pages)}")


def job_of(stack: ComposeStack) -> str:
    answer = http.post(f"{stack['celery-web'].url}/jobs").raise_for_status()
    return answer.json()["id"]  # type: ignore[no-any-return]


def page_of_job(stack: ComposeStack, job: str, opened: ExitStack) -> EventSource:
    url = f"{stack['celery-web'].url}/jobs/{job}/events"
    return opened.enter_context(EventSource(url)).wait_open()


def percents(page: EventSource) -> list[int]:
    return [json.loads(event.data)["percent"] for event in page.of_type("progress")]


def seqs(page: EventSource) -> list[int]:
    return [position_of(event.last_event_id)[1] for event in page.messages]


def test_what_celery_cron_and_the_job_send_reaches_pages_on_both_replicas(stack: ComposeStack):
    job = job_of(stack)
    with ExitStack() as opened:
        progress = [page_of_job(stack, job, opened) for _ in range(2)]
        boards = pages_on_both(stack, "board", opened)
        boards.append(
            opened.enter_context(EventSource(f"{stack['starlette'].url}/stream/1")).wait_open()
        )

        for page in progress:
            page.wait_closed(20)
            assert json.loads(page.events[-1].data) == {"reason": "done"}
            assert percents(page)[-1] == 100
        for page in boards:
            page.wait_for(lambda page: [d for d in page.data if d.startswith("cron at ")], 15)
            page.wait_for(lambda page: page.of_type("tick"), 5)
        for page in [*progress, *boards]:
            first, *_ = found = seqs(page)
            assert found == list(range(first, first + len(found)))


def test_a_rolling_restart_and_killed_workers_lose_nothing(stack: ComposeStack):
    sender = Sender(stack.redis_url, "board", "board", rate=20)
    with ExitStack() as opened:
        witness = Witness(opened.enter_context(stack.connect()), "board")
        behind_nginx = pages_on_both(stack, "board", opened)
        starlette = opened.enter_context(EventSource(f"{stack['starlette'].url}/stream/1"))
        pages = [*behind_nginx, starlette.wait_open()]

        for name in REPLICAS:
            stack[name].stop()
            stack[name].start()
            stack[name].wait_healthy()
        for page in behind_nginx:
            page.wait_for(lambda page: page.opens >= 2, 10, "it moved to the other replica")
        for name in (*REPLICAS, "starlette", "celery-web", "celery-worker"):
            kill_a_worker(stack[name])

        sender.stop()
        log = witness.stop()
        for page in pages:
            Delivery(log, until(log.ids[-1], page)).assert_exactly_once()
            assert set(page.statuses) == {200}
        # The job's worker is there again as well.
        job = page_of_job(stack, job_of(stack), opened)
        job.wait_for(lambda page: percents(page)[-1:] > [0], 15, "progress")
    for service in stack.services.values():
        assert service.is_healthy()


def kill_a_worker(service: Service) -> None:
    """kill -9 to one of its workers, which is replaced."""
    workers = service.child.children()
    workers[-1].kill()
    Deadline(15).until(
        lambda: len(found := service.child.children()) == len(workers) and workers[-1] not in found,
        lambda: f"{service.name} has a new worker\n{service.child.output[-2000:]}",
        every=0.1,
    )


def until(last: str, page: EventSource) -> list[MessageEvent]:
    """What a page was given, up to that event and no further: others go on sending."""
    page.wait_for(lambda page: last in [e.last_event_id for e in page.events], 10, last)
    return [e for e in page.events if position_of(e.last_event_id) <= position_of(last)]


# Development


@pytest.fixture
def sources() -> Path:
    """A copy of what a developer changes."""
    folder = new_folder("sources")
    ignored = shutil.ignore_patterns("__pycache__")
    for name in SOURCES:
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


@pytest.fixture
def development(programs: None, image: Image, sources: Path) -> Iterator[ComposeStack]:
    """All services on the copy, each healthy."""
    stack = ComposeStack(image, new_folder("compose"), files=DEVELOPMENT, sources=sources)
    try:
        yield stack.start()
    finally:
        stack.close()


def change(path: Path, text: str, replacement: str) -> None:
    before = path.read_text()
    assert text in before
    path.write_text(before.replace(text, replacement))


def test_in_development_what_is_saved_runs_and_pages_come_back(
    development: ComposeStack, sources: Path
):
    stack, apps = development, sources / "integrations"
    before = {name: stack[name].child.children() for name in OURS if name != "cron"}
    with ExitStack() as opened:
        witness = Witness(opened.enter_context(stack.connect()), "board")
        url = f"{stack['starlette'].url}/stream/1"
        pages = [
            *pages_on_both(stack, "board", opened),
            opened.enter_context(EventSource(url)).wait_open(),
        ]

        # A file of the package, which all of them use, and one of each app.
        change(sources / "streamy_redis/core/headers.py", '"no",', '"no", "x-saved": "now",')
        change(apps / "celery-jobs/jobs.py", 'f"step {step}', 'f"changed {step}')
        change(apps / "board/job.py", 'f"tick {number}', 'f"changed {number}')

        for page in pages:
            page.wait_for(lambda page: page.header("x-saved") == "now", 20, "the new code")
            page.wait_for(lambda page: "changed" in page.of_type("tick")[-1].data, 20, "its ticks")
        for name, processes in before.items():
            Deadline(20).until(lambda old=processes: not any(p.is_running() for p in old), name)
        # One app alone, and a slip of the pen first.
        app = apps / "gunicorn-flask/app.py"
        change(app, 'return f"gunicorn-flask.', "return (")
        Deadline(20).until(lambda: not stack["flask-1"].is_healthy(), "it can't run", every=0.2)
        change(app, "return (", 'return f"mended-gunicorn-flask.')
        for page in pages[:2]:
            page.wait_for(lambda page: "mended" in (page.header("set-cookie") or ""), 20, "mended")

        progress = page_of_job(stack, job_of(stack), opened)
        progress.wait_for(lambda page: "changed" in str(page.of_type("progress")), 20, "the jobs")
        log = witness.stop()
        for page in pages:
            Delivery(log, until(log.ids[-1], page)).assert_exactly_once()
            assert set(page.statuses) == {200}
