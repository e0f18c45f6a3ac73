"""What is sent stands in no log and no error."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Iterator

import pytest

from streamy_redis import InvalidEvent, RedisUnavailable, StreamConfig
from streamy_redis.doctor import examine_redis
from tests.deadline import Deadline
from tests.managers import AsyncioManager, LoopThread, Reader, ThreadsManager
from tests.servers import RedisServer

SECRET = "xyzzy-secret"


@pytest.fixture(params=["threads", "asyncio"])
def new_streams(
    request: pytest.FixtureRequest, loop_thread: LoopThread
) -> Iterator[Callable[[str], ThreadsManager | AsyncioManager]]:
    config = StreamConfig(send_timeout=0.5, max_event_size=1000)
    with contextlib.ExitStack() as stack:

        def new(url: str) -> ThreadsManager | AsyncioManager:
            if request.param == "threads":
                manager: ThreadsManager | AsyncioManager = ThreadsManager(url, config=config)
            else:
                manager = AsyncioManager(url, config=config, loop=loop_thread)
            stack.callback(manager.close)
            return manager

        yield new


@pytest.fixture
def streams(
    new_streams: Callable[[str], ThreadsManager | AsyncioManager], redis_server: RedisServer
) -> ThreadsManager | AsyncioManager:
    return new_streams(redis_server.url)


def test_payloads_are_never_logged(
    streams: ThreadsManager | AsyncioManager,
    redis_server: RedisServer,
    logged: Callable[[], str],
):
    reader = Reader(streams.subscribe("room"))
    streams.send_event("room", SECRET, f"name-{SECRET}")
    streams.send_events("room", [{"password": SECRET}, SECRET.encode()])
    reader.wait_for(3)
    # A second look, junk on the channel and in the log, and a Redis that goes and comes.
    admin = redis_server.connect()
    for payload in (SECRET, f"data: {SECRET}\n\n", f"id: 1-1-00000000\ndata: {SECRET}"):
        admin.publish("streamy:{room}", payload)
        admin.xadd("streamy:{room}:log", {"frame": payload})
    admin.client_kill_filter(_type="pubsub")
    Deadline(5).until(lambda: "is back" in logged())
    admin.config_set("maxmemory", 1)
    errors = [refused(streams, SECRET), refused(streams, SECRET, RedisUnavailable, "replay")]
    admin.config_set("maxmemory", 0)
    admin.set("streamy:{other}:log", SECRET)
    errors.append(refused(streams, SECRET, RedisUnavailable, "other"))
    for bad in (
        f"{SECRET}\ud800",
        f"{SECRET}".encode() + b"\xff",
        SECRET * 100,
        {SECRET: object()},
    ):
        errors.append(refused(streams, bad, InvalidEvent))
    streams.end_stream("room", SECRET)
    reader.wait_ended()
    admin.close()

    text = logged()
    assert "sent " in text, "DEBUG is on"
    assert "foreign" in text
    assert SECRET not in text
    assert all(SECRET not in error for error in errors), errors


def test_what_a_server_repeats_of_a_command_it_does_not_know_is_cut_off(
    new_streams: Callable[[str], ThreadsManager | AsyncioManager],
):
    with (
        RedisServer(arguments=["--rename-command", "EVALSHA", ""]) as server,
        pytest.raises(RedisUnavailable, match="unknown command 'EVALSHA'") as error,
    ):
        new_streams(server.url).send_event("r", SECRET)

    assert SECRET not in "".join(traceback.format_exception(error.value))


def test_what_a_server_repeats_of_a_login_that_it_does_not_know_is_cut_off(
    new_streams: Callable[[str], ThreadsManager | AsyncioManager],
    logged: Callable[[], str],
):
    with RedisServer(arguments=["--rename-command", "AUTH", ""]) as server:
        url = server.url.replace("redis://", f"redis://:{SECRET}@")
        streams = new_streams(url)
        with pytest.raises(RedisUnavailable, match="unknown command 'AUTH'") as sending:
            streams.send_event("r", "x")
        with pytest.raises(RedisUnavailable, match="unknown command 'AUTH'") as reading:
            streams.subscribe("r").__enter__()
        found = list(examine_redis(url, "streamy"))

    assert "unknown command 'AUTH'" in found[0].text
    told = [logged(), *(str(each) for each in found)]
    told += ["".join(traceback.format_exception(error.value)) for error in (sending, reading)]
    assert "unknown command 'AUTH'" in told[0]
    assert all(SECRET not in text for text in told), told


def refused(
    streams: ThreadsManager | AsyncioManager,
    data: object,
    kind: type[Exception] = RedisUnavailable,
    stream_id: str = "room",
) -> str:
    with pytest.raises(kind) as error:
        streams.send_event(stream_id, data)
    return f"{error.value!s} {error.value!r}"


def test_a_stream_id_forges_no_line(
    streams: ThreadsManager | AsyncioManager, logged: Callable[[], str]
):
    streams.send_event("a\u2028b", "x")

    assert r"'a\u2028b'" in logged()
