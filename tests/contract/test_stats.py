"""What stats() says, of whatever shell."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Protocol

import pytest
import redis
from werkzeug.test import EnvironBuilder

from streamy_redis import AsyncStreamManager, StreamConfig, StreamStats
from tests.deadline import Deadline
from tests.stamps import keys

from .conftest import GEVENT, Shell


class Response(Protocol):
    """A response of get_stream, of which all that is written is noted."""

    status: int
    body: bytearray

    def close(self) -> None: ...


class WsgiResponse:
    """Read by a thread, as a server does it that takes one for each stream."""

    def __init__(self, manager: Any, stream_id: str, **options: Any) -> None:
        self.body = bytearray()
        self._has_left = False
        response = manager.wrapped.get_stream(stream_id, **options)
        environ = EnvironBuilder("/").get_environ()
        self._chunks, status, _ = response.get_wsgi_response(environ)
        self.status = int(status.split()[0])
        self._thread = threading.Thread(target=self._read, name="reader", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        # How a response that is cut ends.
        with contextlib.closing(self._chunks), contextlib.suppress(BrokenPipeError):
            for chunk in self._chunks:
                self.body += chunk
                if self._has_left:
                    break

    def close(self) -> None:
        # As a server notices it: at the next write.
        self._has_left = True
        self._thread.join(10)
        assert not self._thread.is_alive()


class AsgiResponse:
    """Served by a task of the shell's loop."""

    def __init__(self, shell: Shell, manager: Any, stream_id: str, **options: Any) -> None:
        assert shell.loop is not None
        self.status = 0
        self.body = bytearray()
        self._loop = shell.loop
        response = manager.wrapped.get_stream(stream_id, **options)
        self._gone = asyncio.Event()
        self._task = self._loop.call(lambda: asyncio.ensure_future(self._serve(response)))

    async def _serve(self, response: Any) -> None:
        async def receive() -> dict[str, str]:
            await self._gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            self.status = message.get("status", self.status)
            self.body += message.get("body", b"")
            if not message.get("more_body", True):
                self._gone.set()

        await response({"type": "http", "method": "GET", "headers": []}, receive, send)

    def close(self) -> None:
        async def leave() -> None:
            self._gone.set()
            await self._task

        self._loop.run(leave())


Open = Callable[..., Response]


@pytest.fixture
def respond(shell: Shell) -> Iterator[Open]:
    """Makes a response, and waits until it says that the stream is open, or is no stream."""
    with ExitStack() as stack:

        def respond(manager: Any, stream_id: str, **options: Any) -> Response:
            response: Response
            if shell.is_async:
                response = AsgiResponse(shell, manager, stream_id, **options)
            else:
                response = WsgiResponse(manager, stream_id, keep_alive_interval=0.3, **options)
            stack.callback(response.close)
            Deadline(10).until(
                lambda: b"stream-open" in response.body or response.status > 200,
                lambda: response.body,
            )
            return response

        yield respond


def wait_stats(manager: Any, **figures: Any) -> StreamStats:
    """The stats, once they have these figures."""

    def has_them() -> StreamStats | None:
        stats = manager.stats()
        return stats if all(getattr(stats, k) == v for k, v in figures.items()) else None

    return Deadline(10).until(has_them, lambda: f"{figures} in {manager.stats()}")


def ended(**counts: int) -> dict[str, int]:
    return {**StreamStats().ended, **counts}


NOTHING = StreamStats()


def test_before_first_use_all_is_zero_and_nothing_is_started(shell: Shell):
    threads = set(threading.enumerate())
    # Nobody listens there.
    manager = shell.manager("redis://127.0.0.1:1/0")

    assert manager.stats() == NOTHING
    assert manager.stats().ended == {
        "disconnect": 0,
        "end": 0,
        "overflow": 0,
        "timeout": 0,
        "lifetime": 0,
        "shutdown": 0,
        "failed": 0,
    }
    assert set(threading.enumerate()) <= threads


def test_a_manager_that_only_sends_has_nothing_to_tell(streams: Any):
    streams.send_event("room", "a")

    assert streams.stats() == NOTHING


def test_responses_and_streams_are_counted_while_they_are_open(
    shell: Shell, streams: Any, respond: Open
):
    first = respond(streams, "room")
    respond(streams, "room")
    respond(streams, "hall")
    # A reader inside the process is no response.
    shell.reader(streams, "attic")

    assert (streams.stats().subscribers, streams.stats().streams) == (3, 3)
    first.close()
    assert wait_stats(streams, subscribers=2).ended == ended(disconnect=1)


def test_a_frame_counts_for_each_that_it_is_written_to(streams: Any, respond: Open):
    responses = [respond(streams, "room", replay="all") for _ in range(3)]
    before = streams.stats().frames_written

    for n in range(5):
        streams.send_event("room", f"({n})")
    streams.end_stream("room")
    for response in responses:
        Deadline(10).until(lambda r=response: b"stream-end" in r.body, lambda r=response: r.body)

    keep_alives = sum(response.body.count(b"\n:\n") for response in responses)
    stats = wait_stats(streams, ended=ended(end=3), subscribers=0)
    assert stats.frames_written - before - keep_alives <= 3 * 6 + 3
    assert stats.frames_written - before >= 3 * 6


def test_what_a_subscription_reads_counts_as_well(shell: Shell, streams: Any):
    streams.send_events("room", ["a", "b"])

    reader = shell.reader(streams, "room", replay="all")
    reader.wait_for(2)
    streams.send_event("room", "c")
    reader.wait_for(3)

    assert wait_stats(streams, frames_written=3).resets == 0


def test_the_backlog_s_high_water_is_that_of_the_slowest_while_it_is_slow(
    shell: Shell, streams: Any
):
    slow, quick = shell.reader(streams, "room"), shell.reader(streams, "room")
    slow.pause()
    streams.send_event("room", "0")
    # Both have it, and the slow one takes no more.
    wait_stats(streams, frames_written=2)
    for n in range(1, 20):
        streams.send_event("room", str(n))
        quick.wait_for(n + 1)

    assert streams.stats().backlog_high_water == 19

    slow.go_on()
    slow.wait_for(20)
    assert streams.stats().backlog_high_water == 19


def test_a_backlog_that_overflows_is_a_high_water_and_no_end_of_a_subscription(shell: Shell):
    streams = shell.manager(max_backlog=3)
    reader = shell.reader(streams, "room")
    reader.pause()
    quick = shell.reader(streams, "room")

    for n in range(10):
        streams.send_event("room", str(n))
        quick.wait_for(n + 1)

    # What was dropped counts too.
    assert streams.stats().backlog_high_water == 3
    assert streams.stats().ended == ended()
    reader.go_on()
    assert [int(event.data) for event in reader.wait_for(10)] == list(range(10))


def test_a_reset_counts_for_each_that_got_it(shell: Shell, streams: Any, store: redis.Redis):
    gone = streams.send_event("room", "a")
    readers = [shell.reader(streams, "room") for _ in range(2)]
    store.delete(shell.log("room"))

    late = shell.reader(streams, "room", last_event_id=gone)
    streams.send_event("room", "b")

    for reader in (*readers, late):
        Deadline(10).until(lambda r=reader: "b" in r.data, lambda r=reader: r.received)
    assert [r.kinds.count("reset") for r in (*readers, late)] == [1, 1, 1]
    assert streams.stats().resets == 3


@pytest.mark.real_server
def test_a_connection_made_anew_is_a_reconnect(shell: Shell, streams: Any, store: redis.Redis):
    reader = shell.reader(streams, "room")
    assert streams.stats().reconnects == 0

    store.client_kill_filter(_type="pubsub")

    wait_stats(streams, reconnects=1)
    streams.send_event("room", "x")
    reader.wait_for(1)


def test_who_is_one_too_many_is_refused_and_nothing_else(shell: Shell, respond: Open):
    streams = shell.manager(max_subscribers=1)
    respond(streams, "room")

    statuses = [respond(streams, "room").status for _ in range(3)]

    assert statuses == [503] * 3
    stats = streams.stats()
    assert (stats.refused, stats.subscribers, stats.ended) == (3, 1, ended())


def test_who_has_seen_the_end_is_a_response_that_it_ended(streams: Any, respond: Open):
    streams.send_event("room", "a")
    streams.end_stream("room")
    end = streams.info("room").last_event_id

    response = respond(streams, "room", last_event_id=end)

    assert (response.status, response.body) == (204, b"")
    stats = streams.stats()
    assert (stats.ended, stats.subscribers, stats.frames_written) == (ended(end=1), 0, 0)


def test_after_close_the_counts_stay_and_a_new_life_adds_to_them(
    shell: Shell, streams: Any, respond: Open
):
    respond(streams, "room")
    frames = streams.stats().frames_written

    streams.close()

    stats = streams.stats()
    assert (stats.subscribers, stats.streams, stats.ended) == (0, 0, ended(shutdown=1))
    assert stats.frames_written >= frames > 0
    streams.close()
    assert streams.stats() == stats
    reader = shell.reader(streams, "hall")
    streams.send_event("hall", "x")
    reader.wait_for(1)
    assert streams.stats().frames_written == stats.frames_written + 1
    assert streams.stats().ended == ended(shutdown=1)


def test_any_thread_may_ask_while_everything_changes(shell: Shell, streams: Any):
    readers = [shell.reader(streams, f"room {n}") for n in range(5)]
    seen: list[StreamStats] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            seen.append(streams.stats())
            done.wait(0.001)

    asking = threading.Thread(target=ask)
    asking.start()
    for _ in range(20):
        for n in range(5):
            streams.send_event(f"room {n}", "x")
    for reader in readers:
        reader.wait_for(20)
    done.set()
    asking.join(10)

    written = [stats.frames_written for stats in seen]
    assert written == sorted(written)
    assert streams.stats().frames_written == 100


class Broken:
    """A follower, as metrics are whose disk is full."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def update(self) -> None:
        self.calls.append("update")
        raise OSError("disk full")

    def written(self, delay: float) -> None:
        self.calls.append("written")
        raise OSError("disk full")


def test_a_follower_that_fails_holds_up_nobody(
    shell: Shell, streams: Any, caplog: pytest.LogCaptureFixture
):
    broken = Broken()
    streams.wrapped._tally.follow(broken)
    reader = shell.reader(streams, "room")

    for n, key in enumerate(itertools.islice(keys(are_stamped=True), 5), 1):
        streams.send_event("room", "x", idempotency_key=key)
        reader.wait_for(n)
    Deadline(10).until(lambda: {"update", "written"} <= set(broken.calls), lambda: broken.calls)

    assert streams.stats().reconnects == 0
    streams.close()
    assert [record.name for record in caplog.records] == ["streamy_redis.tally"]


@pytest.mark.skipif(GEVENT, reason="asyncio under gevent is nobody's case")
@pytest.mark.parametrize("closing", [True, False], ids=["aclose", "abandoned"])
def test_event_loops_add_up(redis_url: str, prefix: str, closing: bool):
    streams = AsyncStreamManager(redis_url, config=StreamConfig(prefix=prefix))
    together = threading.Barrier(2, timeout=10)
    open_at_once: list[int] = []

    async def job() -> None:
        async with streams.subscribe("room", replay="all") as events:
            await streams.send_event("room", "x")
            await anext(aiter(events))
            await asyncio.to_thread(together.wait)
            open_at_once.append(streams.stats().streams)
            await asyncio.to_thread(together.wait)
        if closing:
            await streams.aclose()

    threads = [threading.Thread(target=lambda: asyncio.run(job())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    assert open_at_once == [2, 2]
    assert streams.stats().frames_written >= 2
    assert streams.stats().streams == 0
