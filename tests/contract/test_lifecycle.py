"""A manager's life: nothing before the first use, nothing after close."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
import redis.asyncio

from streamy_redis import StreamyError
from tests.deadline import Deadline

from .conftest import Shell


def test_building_one_connects_and_starts_nothing(shell: Shell):
    threads = threading.active_count()
    nowhere = shell.manager("redis://127.0.0.1:1/0")

    nowhere.close()
    assert threading.active_count() == threads


def test_close_may_be_repeated(shell: Shell, streams: Any):
    streams.send_event("room", "x")

    streams.close()
    streams.close()


def test_close_stops_every_iteration_with_an_error(shell: Shell, streams: Any):
    """A loop that ended quietly would take half of a stream for all of it."""
    readers = [shell.reader(streams, f"room {n % 2}") for n in range(5)]
    last = streams.send_event("room 0", "x")
    readers[0].wait_for(1)

    streams.close()

    for reader in readers:
        error = reader.wait_stopped()
        assert type(error) is StreamyError
        assert "before its stream ended" in str(error)
    assert f"last_event_id={last!r}" in str(readers[0].error)


def test_a_subscription_that_is_closed_itself_just_stops(shell: Shell, streams: Any):
    with streams.subscribe("room") as events:
        pass
    streams.close()

    assert list(events) == []


def test_an_end_that_was_received_stops_an_iteration_although_the_manager_is_closed(
    shell: Shell, streams: Any
):
    with streams.subscribe("room") as events:
        streams.send_event("room", "x")
        streams.end_stream("room")
        iteration = iter(events)
        kinds = [next(iteration).kind, next(iteration).kind]
        streams.close()

        assert [*kinds, *(event.kind for event in iteration)] == ["event", "end"]


def test_close_of_one_manager_leaves_others_working(shell: Shell, streams: Any):
    other = shell.manager()
    reader = shell.reader(other, "room")
    shell.reader(streams, "room")

    streams.close()
    other.send_event("room", "x")

    assert reader.wait_for(1)[0].data == "x"


def test_leaving_the_block_ends_a_subscription(shell: Shell, streams: Any):
    for n in range(3):
        with streams.subscribe("room") as events:
            sent = streams.send_event("room", str(n))
            assert next(iter(events)).id == sent


@pytest.mark.real_server
def test_close_gives_every_connection_back(shell: Shell, store: Any):
    before = len(store.client_list())
    for _ in range(3):
        streams = shell.manager()
        shell.reader(streams, "room")
        streams.send_event("room", "x")
        streams.close()

    Deadline(5).until(lambda: len(store.client_list()) <= before, lambda: store.client_list())


def client_of_its_kind(shell: Shell, **settings: Any) -> Any:
    kind = redis.asyncio.Redis if shell.is_async else redis.Redis
    return kind.from_url(shell.url, **settings)


@pytest.mark.one_server
@pytest.mark.parametrize(
    "settings",
    [{}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}, {"socket_timeout": 0.2}],
    ids=str,
)
def test_takes_a_client_of_redis_py_with_its_settings(shell: Shell, settings: dict[str, Any]):
    client = client_of_its_kind(shell, **settings)
    streams = shell.manager(client)
    reader = shell.reader(streams, "room")

    sent = [streams.send_event("room", "é")]
    Deadline(0.6).stays(lambda: reader.error is None) if "socket_timeout" in settings else None
    sent.append(streams.send_event("room", b"b"))

    assert [(e.id, e.data) for e in reader.wait_for(2)] == [(sent[0], "é"), (sent[1], "b")]
    assert streams.info("room").last_event_id == sent[1]


@pytest.mark.one_server
def test_a_caller_s_client_stays_open(shell: Shell):
    client = client_of_its_kind(shell)
    streams = shell.manager(client)
    streams.send_event("room", "x")
    streams.close()

    if shell.loop is not None:
        assert shell.loop.run(client.ping())
        shell.loop.run(client.connection_pool.disconnect())
    else:
        assert client.ping()
        client.close()


@pytest.mark.one_server
def test_refuses_a_client_of_the_other_kind(shell: Shell):
    wrong = (redis.Redis if shell.is_async else redis.asyncio.Redis).from_url(shell.url)

    with pytest.raises(TypeError, match="redis"):
        shell.manager(wrong)


@pytest.mark.parametrize("wrong", [7, b"redis://", {"url": "redis://"}, ["redis://"]], ids=repr)
@pytest.mark.refusal
def test_refuses_what_is_no_url_and_no_client(shell: Shell, wrong: Any):
    with pytest.raises(TypeError, match="redis"):
        shell.manager(wrong)


@pytest.mark.refusal
def test_refuses_a_config_of_another_kind(shell: Shell):
    kind = type(shell.manager().wrapped)

    with pytest.raises(TypeError, match="config"):
        kind(shell.url, config={"prefix": "x"})
