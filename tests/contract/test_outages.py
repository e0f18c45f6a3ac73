"""Redis away, hanging, refusing, restarted: bounded errors for senders, patience for readers."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from streamy_redis import RedisUnavailable, StreamyError
from tests.deadline import Deadline
from tests.ports import free_port
from tests.servers import RedisServer

from .conftest import Shell

pytestmark = pytest.mark.one_server

SEND_TIMEOUT = 0.6
CALLS = [
    ("send_event", ("room", "x")),
    ("send_events", ("room", ["x", "y"])),
    ("end_stream", ("room",)),
    ("delete_stream", ("room",)),
    ("info", ("room",)),
]


@pytest.fixture
def hanging(redis_server: RedisServer) -> Iterator[RedisServer]:
    redis_server.hang()
    yield redis_server
    redis_server.go_on()


def raises_in_time(call: Any) -> RedisUnavailable:
    start = time.monotonic()
    with pytest.raises(RedisUnavailable) as caught:
        call()
    assert time.monotonic() - start < SEND_TIMEOUT + 1
    assert isinstance(caught.value, StreamyError)
    return caught.value


def all_raise_in_time(streams: Any) -> None:
    """Every method at once, each on a thread of its own."""
    errors: dict[str, BaseException] = {}

    def call(method: str, arguments: tuple[Any, ...]) -> None:
        try:
            raises_in_time(lambda: getattr(streams, method)(*arguments))
        except BaseException as error:
            errors[method] = error

    threads = [threading.Thread(target=call, args=each) for each in CALLS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert errors == {}


def test_every_method_raises_in_time_when_nobody_listens(shell: Shell):
    all_raise_in_time(
        shell.manager(f"redis://127.0.0.1:{free_port()}/0", send_timeout=SEND_TIMEOUT)
    )


def test_every_method_raises_in_time_when_redis_hangs(shell: Shell, hanging: RedisServer):
    all_raise_in_time(shell.manager(hanging.url, send_timeout=SEND_TIMEOUT))


def test_raises_in_time_when_redis_hangs_on_an_open_connection(
    shell: Shell, redis_server: RedisServer
):
    streams = shell.manager(redis_server.url, send_timeout=SEND_TIMEOUT)
    streams.send_event("room", "before")
    redis_server.hang()
    try:
        error = raises_in_time(lambda: streams.send_event("room", "x"))
    finally:
        redis_server.go_on()

    event_id = streams.send_event("room", "x", idempotency_key=error.idempotency_key)
    again = streams.send_event("room", "x", idempotency_key=error.idempotency_key)

    assert event_id == again
    stored = shell.reader(streams, "room", replay="all").wait_for(2)
    assert [e.data for e in stored] == ["before", "x"]
    assert streams.info("room").length == 2


def test_the_caller_s_own_key_is_the_one_in_the_error(shell: Shell):
    nowhere = shell.manager(f"redis://127.0.0.1:{free_port()}/0", send_timeout=SEND_TIMEOUT)

    error = raises_in_time(lambda: nowhere.send_event("room", "x", idempotency_key="order 7"))

    assert error.idempotency_key == "order 7"


def test_many_senders_at_once_raise_in_time(shell: Shell, hanging: RedisServer):
    streams = shell.manager(hanging.url, send_timeout=SEND_TIMEOUT)
    took: list[float] = []

    def send() -> None:
        start = time.monotonic()
        with pytest.raises(RedisUnavailable):
            streams.send_event("room", "x")
        took.append(time.monotonic() - start)

    threads = [threading.Thread(target=send) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len(took) == 20
    assert max(took) < SEND_TIMEOUT + 1


def test_a_short_outage_is_hidden_from_senders(shell: Shell, redis_server: RedisServer):
    streams = shell.manager(redis_server.url, send_timeout=5, max_retries=50)
    streams.send_event("room", "before")
    redis_server.kill()
    comeback = threading.Timer(0.3, redis_server.start)
    comeback.start()
    try:
        assert streams.send_event("room", "during")
    finally:
        comeback.join(20)
    assert streams.info("room").length == 1


def test_a_connection_that_redis_closed_is_replaced_unnoticed(
    shell: Shell, redis_server: RedisServer
):
    streams = shell.manager(redis_server.url)
    store = redis_server.connect()
    for n in range(10):
        store.client_kill_filter(_type="normal", skipme=True)
        streams.send_event("room", str(n))

    assert streams.info("room").length == 10
    store.close()


def test_max_retries_ends_it_before_send_timeout(shell: Shell):
    nowhere = shell.manager(f"redis://127.0.0.1:{free_port()}/0", send_timeout=60, max_retries=1)
    start = time.monotonic()

    with pytest.raises(RedisUnavailable):
        nowhere.send_event("room", "x")

    assert time.monotonic() - start < 5


def test_another_type_at_the_key_is_an_error_that_names_the_key(
    shell: Shell, streams: Any, store: Any
):
    store.set(shell.log("room"), "not a stream")

    for method, arguments in CALLS:
        if method == "delete_stream":
            continue
        with pytest.raises(StreamyError, match="room") as caught:
            getattr(streams, method)(*arguments)
        assert shell.log("room") in str(caught.value)


def test_a_reader_outlives_another_type_at_the_key(shell: Shell, store: Any):
    streams = shell.manager(position_check_interval=0.1)
    reader = shell.reader(streams, "room")
    store.set(shell.log("room"), "not a stream")
    # A reconnect makes it read the log, which Redis refuses.
    store.client_kill_filter(_type="pubsub")
    assert reader.gets_no_more(0.5)

    store.delete(shell.log("room"))
    streams.send_event("room", "x")

    reader.wait_for(1)
    assert (reader.data, reader.kinds) == (["x"], ["event"])


def test_subscribing_raises_in_time_when_nobody_listens(shell: Shell):
    nowhere = shell.manager(f"redis://127.0.0.1:{free_port()}/0", send_timeout=SEND_TIMEOUT)

    raises_in_time(lambda: nowhere.subscribe("room").__enter__())


def test_subscribing_says_what_redis_said(shell: Shell, store: Any):
    streams = shell.manager(send_timeout=SEND_TIMEOUT)
    store.set(shell.log("room"), "a string")

    with pytest.raises(RedisUnavailable, match="WRONGTYPE"):
        streams.subscribe("room").__enter__()


def test_subscribing_raises_in_time_when_redis_hangs(shell: Shell, hanging: RedisServer):
    streams = shell.manager(hanging.url, send_timeout=SEND_TIMEOUT)

    raises_in_time(lambda: streams.subscribe("room").__enter__())


def test_subscribing_waits_for_a_redis_that_comes_up(shell: Shell, redis_server: RedisServer):
    redis_server.kill()
    streams = shell.manager(redis_server.url, send_timeout=10)
    comeback = threading.Timer(0.5, redis_server.start)
    comeback.start()
    try:
        reader = shell.reader(streams, "room")
        sent = streams.send_event("room", "x")
    finally:
        comeback.join(20)

    assert reader.wait_for(1)[0].id == sent


def test_a_reader_misses_nothing_while_redis_hangs(shell: Shell, redis_server: RedisServer):
    streams = shell.manager(redis_server.url)
    reader = shell.reader(streams, "room")
    ids = [streams.send_event("room", "before")]

    assert reader.wait_for(1)
    redis_server.hang()
    assert reader.gets_no_more(0.5)
    redis_server.go_on()
    ids.append(streams.send_event("room", "after"))

    reader.wait_for(2)
    assert reader.ids == ids


def test_a_reader_of_a_redis_restarted_with_its_data_misses_nothing(
    shell: Shell, durable_redis_server: RedisServer
):
    streams = shell.manager(durable_redis_server.url)
    reader = shell.reader(streams, "room")
    ids = streams.send_events("room", ["a", "b"])
    reader.wait_for(2)

    durable_redis_server.restart()
    ids.append(streams.send_event("room", "c"))

    reader.wait_for(3)
    assert (reader.ids, reader.kinds) == (ids, ["event"] * 3)
    assert reader.gets_no_more()


def test_a_reader_of_a_redis_restarted_empty_gets_one_reset_then_live(
    shell: Shell, redis_server: RedisServer
):
    streams = shell.manager(redis_server.url)
    reader = shell.reader(streams, "room")
    bystander = shell.reader(streams, "quiet")
    old = streams.send_events("room", ["a", "b"])
    reader.wait_for(2)

    redis_server.restart(empty=True)
    new = [streams.send_event("room", str(n)) for n in range(3)]

    reader.wait_for(6)
    assert reader.gets_no_more(0.5)
    assert reader.kinds == ["event", "event", "reset", "event", "event", "event"]
    assert reader.ids[3:] == new
    assert json.loads(reader.received[2].data)["requested"] == old[1]
    assert bystander.received == [], "whoever had nothing lost nothing"


def test_a_subscription_can_be_left_while_redis_hangs(shell: Shell, redis_server: RedisServer):
    streams = shell.manager(redis_server.url)
    subscription = streams.subscribe("room")
    subscription.__enter__()
    redis_server.hang()
    try:
        start = time.monotonic()
        subscription.__exit__(None, None, None)
        streams.close()
        assert time.monotonic() - start < 3
    finally:
        redis_server.go_on()


def test_after_an_outage_nothing_is_left_of_it(shell: Shell, redis_server: RedisServer):
    streams = shell.manager(redis_server.url, send_timeout=SEND_TIMEOUT)
    store = redis_server.connect()
    shell.reader(streams, "room")
    for n in range(3):
        redis_server.hang()
        with pytest.raises(RedisUnavailable):
            streams.send_event("room", str(n))
        redis_server.go_on()
    streams.send_event("room", "x")

    def kinds() -> tuple[int, int]:
        clients = store.client_list()
        pubsub = sum(int(c["sub"]) > 0 for c in clients)
        return pubsub, len(clients) - 1 - pubsub

    Deadline(10).until(lambda: kinds()[0] == 1 and kinds()[1] <= 4, kinds)
    store.close()
