"""A Redis that is far away: what many send at once goes there together."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis

from tests.deadline import Deadline
from tests.proxy import FarProxy

from .conftest import Shell

pytestmark = pytest.mark.one_server

SENDERS = 200


def at_once(count: int, act: Callable[[int], Any]) -> tuple[list[Any], float]:
    """What each call came to, and the seconds that all of them took together."""
    results: list[Any] = [None] * count
    gate = threading.Barrier(count + 1)

    def run(number: int) -> None:
        gate.wait(30)
        try:
            results[number] = act(number)
        except BaseException as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    gate.wait(30)
    start = time.monotonic()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    return results, time.monotonic() - start


@pytest.mark.alone
@pytest.mark.parametrize("round_trip", [0.02, 0.1, 0.2])
def test_200_senders_at_once_are_all_served_in_time(
    shell: Shell, redis_url: str, round_trip: float
):
    port = redis.connection.parse_url(redis_url)["port"]
    with FarProxy(port, round_trip) as far:
        streams = shell.manager(far.url)

        ids, took = at_once(SENDERS, lambda n: streams.send_event("room", str(n)))

        assert [each for each in ids if not isinstance(each, str)] == []
        assert len(set(ids)) == SENDERS
        # Connecting and the first script are five or six of them.
        assert took < 1 + 12 * round_trip
        assert streams.info("room").length == SENDERS
        streams.close()


def test_large_events_of_many_senders_are_stored_whole(shell: Shell, redis_url: str):
    port = redis.connection.parse_url(redis_url)["port"]
    with FarProxy(port, 0.05) as far:
        streams = shell.manager(far.url)
        texts = [str(number) * 300_000 for number in range(10)]

        ids, _ = at_once(10, lambda n: streams.send_event("room", texts[n]))

        near = shell.manager(redis_url)
        stored = shell.reader(near, "room", replay="all").wait_for(10)
        assert {event.id: event.data for event in stored} == dict(zip(ids, texts, strict=True))
        streams.close()


def test_each_gets_the_answer_to_their_own_question(shell: Shell, redis_url: str):
    """Some are refused, some read, some delete: nobody gets another's reply."""
    streams = shell.manager()
    streams.end_stream("ended")
    streams.send_event("to read", "x")

    def act(number: int) -> Any:
        return [
            lambda: streams.send_event(f"room {number}", str(number)),
            lambda: streams.send_event("ended", "x"),
            lambda: streams.info("to read").length,
            lambda: streams.delete_stream("nothing here"),
        ][number % 4]()

    results, _ = at_once(80, act)

    for number, result in enumerate(results):
        expected = [
            lambda found, n=number: found == streams.info(f"room {n}").last_event_id,
            lambda found: type(found).__name__ == "StreamEnded",
            lambda found: found == 1,
            lambda found: found is False,
        ][number % 4]
        assert expected(result), (number, result)


def test_one_sender_alone_has_one_connection(shell: Shell, redis_url: str):
    streams = shell.manager()
    store = redis.Redis.from_url(redis_url)
    before = {client["id"] for client in store.client_list()}

    for number in range(5):
        streams.send_event("room", str(number))

    made = [client for client in store.client_list() if client["id"] not in before]
    assert len(made) == 1
    store.close()


def test_many_senders_have_three_connections(shell: Shell, redis_url: str):
    streams = shell.manager()
    store = redis.Redis.from_url(redis_url)
    before = {client["id"] for client in store.client_list()}

    at_once(50, lambda n: [streams.send_event("room", f"{n} {i}") for i in range(5)])

    def made() -> list[str]:
        return [client["id"] for client in store.client_list() if client["id"] not in before]

    assert len(made()) <= 3
    streams.close()
    Deadline(5).until(lambda: not made(), made)
    store.close()
