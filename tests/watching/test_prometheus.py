"""The metrics, as Prometheus scrapes them from real servers."""

from __future__ import annotations

import dataclasses
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.parser import text_string_to_metric_families
from werkzeug.test import EnvironBuilder

from streamy_redis import AsyncStreamManager, StreamConfig, StreamManager
from streamy_redis.prometheus import observe
from tests.deadline import Deadline
from tests.faults.rude_clients import RudeClient
from tests.managers import AsyncioManager, LoopThread, Reader, ThreadsManager
from tests.readme.document import EXAMPLES
from tests.servers import RedisServer
from tests.stamps import keys
from tests.web_servers import KINDS, WebServer, http

OPENED = b"event: stream-open\ndata: {}\n"


class Watched:
    """An example of docs/watching.md on a real server, with clients that never come back."""

    def __init__(self, server: WebServer, redis_url: str) -> None:
        self.server = server
        self.streams = StreamManager(redis_url)
        self.clients: list[RudeClient] = []
        self._keys = keys(are_stamped=True)

    def open(self, count: int = 1) -> None:
        for _ in range(count):
            client = RudeClient(f"{self.server.url}/events/room")
            self.clients.append(client.read_until(OPENED))

    def send(self, count: int) -> None:
        """Events that are measured, until everybody has got them."""
        for n in range(count):
            self.streams.send_event("room", f"({n})", idempotency_key=next(self._keys))
        for client in self.clients:
            client.read_until(b"data: (%d)\n" % (count - 1))

    def leave_the_dead(self) -> int:
        """How many clients were cut off; they are forgotten."""
        cut_off = [client for client in self.clients if self._is_cut_off(client)]
        for client in cut_off:
            self.clients.remove(client)
            client.close()
        return len(cut_off)

    @staticmethod
    def _is_cut_off(client: RudeClient) -> bool:
        client.socket.setblocking(False)
        try:
            while chunk := client.socket.recv(65536):
                client.received += chunk
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True
        finally:
            client.socket.settimeout(10)
        return True

    def scrape(self) -> dict[str, float]:
        """What /metrics says, by name and reason."""
        answer = http.get(f"{self.server.url}/metrics", follow_redirects=True).raise_for_status()
        assert answer.headers["content-type"].startswith("text/plain")
        return {
            sample.name.removeprefix("streamy_redis_")
            + "".join(sample.labels.values()): sample.value
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name.startswith("streamy_redis_")
            and not sample.name.endswith(("_created", "_bucket"))
        }

    def wait(self, **figures: float) -> dict[str, float]:
        """What /metrics says, once it says this."""
        seen: list[dict[str, float]] = []

        def is_so() -> dict[str, float] | None:
            seen.append(self.scrape())
            return seen[-1] if figures.items() <= seen[-1].items() else None

        return Deadline(10).until(is_so, lambda: f"{figures} in {seen[-1]}", every=0.05)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.streams.close()
        self.server.close()


@pytest.fixture
def watch(redis_server: RedisServer, tmp_path: Path) -> Iterator[Any]:
    """Starts an example, on a Redis of its own: it uses the default prefix."""
    with ExitStack() as stack:

        def watch(kind: str, app: str, *, workers: int, **options: Any) -> Watched:
            folder = {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)} if workers > 1 else {}
            # Only gunicorn's own line tells that a worker of an example is up.
            is_up = KINDS[kind].is_up if KINDS[kind].is_asgi else "Booting worker"
            server = WebServer(
                dataclasses.replace(KINDS[kind], is_up=is_up),
                f"{app}:app",
                workers=workers,
                env={"STREAMY_REDIS_URL": redis_server.url, **folder},
                directory=EXAMPLES,
                ready="/metrics/" if KINDS[kind].is_asgi else "/metrics",
                **options,
            ).start()
            watched = Watched(server, redis_server.url)
            stack.callback(watched.close)
            return watched

        yield watch


@pytest.mark.parametrize("kind", ["gunicorn-sync", "gunicorn-gthread", "gunicorn-gevent"])
def test_workers_of_gunicorn_add_up_and_the_gauges_of_the_dead_drop_out(watch: Any, kind: str):
    config = ["--config", "watched_gunicorn.py"]
    watched = watch(kind, "watched_flask", workers=2, arguments=config)
    assert set(watched.scrape().values()) == {0.0}

    # Until both workers have some.
    Deadline(20).until(lambda: watched.open(2) or watched.scrape()["streams"] == 2, every=0.3)
    before = watched.wait(subscribers=len(watched.clients))
    watched.send(5)

    everybody = len(watched.clients)
    written = before["frames_written_total"] + 5 * everybody
    after = watched.wait(send_to_write_seconds_count=10, frames_written_total=written)
    # By two clocks, which are compared to within a round trip: what is quicker may count as 0.
    assert 0 <= after["send_to_write_seconds_sum"] < 10
    assert after["backlog_high_water_events"] <= 5

    killed, stopped = watched.server.workers()
    killed.kill()
    gone = Deadline(10).until(watched.leave_the_dead)
    left = watched.wait(subscribers=everybody - gone, streams=1)
    assert left["frames_written_total"] == written
    assert left["send_to_write_seconds_count"] == 10

    # One that ends by itself has told how.
    stopped.send_signal(signal.SIGTERM)
    Deadline(10).until(lambda: not psutil.pid_exists(stopped.pid))
    last = watched.wait(subscribers=0, streams=0, responses_ended_totalshutdown=everybody - gone)
    assert last["frames_written_total"] == written


def test_one_process_of_uvicorn_needs_no_folder(watch: Any):
    watched = watch("uvicorn", "watched_starlette", workers=1)
    assert set(watched.scrape().values()) == {0.0}

    watched.open(3)
    watched.wait(subscribers=3, streams=1)
    watched.send(4)
    watched.wait(send_to_write_seconds_count=4)
    watched.clients.pop().close()
    watched.wait(subscribers=2, responses_ended_totaldisconnect=1)
    watched.streams.end_stream("room")

    watched.wait(subscribers=0, responses_ended_totalend=2)


# -- in this process ------------------------------------------------------------------------------


@pytest.fixture
def loop_thread() -> Iterator[LoopThread]:
    loop = LoopThread()
    yield loop
    loop.close()


def test_managers_on_one_registry_add_up(redis_url: str, prefix: str, loop_thread: LoopThread):
    config = StreamConfig(prefix=prefix)
    threads = ThreadsManager(redis_url, config=config)
    tasks = AsyncioManager(redis_url, config=config, loop=loop_thread)
    registry = CollectorRegistry()
    for manager in (threads, tasks, threads):
        observe(manager.wrapped, registry)
    readers = [Reader(manager.subscribe("room")) for manager in (threads, tasks)]

    for key in itertools.islice(keys(are_stamped=True), 3):
        threads.send_event("room", "x", idempotency_key=key)
    key = next(keys(are_stamped=False))
    threads.send_event("room", "not measured", idempotency_key=key)
    for reader in readers:
        reader.wait_for(4)

    figure = registry.get_sample_value
    Deadline(10).until(lambda: figure("streamy_redis_frames_written_total") == 8)
    Deadline(10).until(lambda: figure("streamy_redis_send_to_write_seconds_count") == 6)
    assert figure("streamy_redis_streams") == 2
    for manager in (threads, tasks):
        manager.close()
    assert figure("streamy_redis_streams") == 0
    assert figure("streamy_redis_frames_written_total") == 8
    for reader in readers:
        reader.join()


def test_refusals_are_a_counter_of_their_own(redis_url: str, prefix: str):
    registry = CollectorRegistry()
    config = StreamConfig(prefix=prefix, max_subscribers=1)
    with StreamManager(redis_url, config=config) as streams:
        observe(streams, registry)
        environ = EnvironBuilder("/").get_environ()
        answers = [streams.get_stream("room").get_wsgi_response(environ) for _ in range(3)]
        assert [status[:3] for _, status, _ in answers] == ["200", "503", "503"]
        for body, _, _ in answers:
            body.close()

    assert registry.get_sample_value("streamy_redis_responses_refused_total") == 2


@pytest.mark.parametrize("manager", [None, "redis://", StreamManager])
def test_what_is_no_manager_is_refused(manager: Any):
    with pytest.raises(TypeError, match="must be a StreamManager or an AsyncStreamManager"):
        observe(manager, CollectorRegistry())


def test_names_that_are_taken_are_refused():
    registry = CollectorRegistry()
    Gauge("streamy_redis_subscribers", "Somebody else's.", registry=registry)

    with pytest.raises(ValueError, match="streamy_redis_subscribers"):
        observe(AsyncStreamManager(), registry)


def test_without_the_extra_the_error_names_it():
    code = "import sys; sys.modules['prometheus_client'] = None; import streamy_redis.prometheus"

    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert "pip install 'streamy-redis[prometheus]'" in done.stderr.splitlines()[-1]
