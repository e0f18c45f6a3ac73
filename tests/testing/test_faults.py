"""The faults of the embedded server do what they say, to apps of both frameworks."""

from __future__ import annotations

import json
import threading

import pytest
import redis

from streamy_redis.exceptions import InvalidEvent
from streamy_redis.testing import MissingEvents, RedisServer
from tests.deadline import Deadline

from .sites import Site


def connections(server: RedisServer) -> set[int]:
    """Ids of those that are open, but for the one that asks."""
    with redis.Redis.from_url(server.url) as store:
        own = store.client_id()
        return {int(client["id"]) for client in store.client_list()} - {own}


def test_dropped_connections_are_made_anew_and_nothing_is_lost(
    site: Site, server: RedisServer, room: str
):
    with site.open(f"/streams/{room}") as stream:
        site.post(f"/streams/{room}", "before")
        stream.collect(1)
        before = connections(server)
        assert before

        server.drop_connections()
        Deadline(5).until(lambda: not before & connections(server), "they are closed")

        assert site.post(f"/streams/{room}", "after") == 200
        assert [e.data for e in stream.collect(1)] == ["after"]
        assert stream.status == 200


def test_while_it_is_away_sends_fail_and_afterwards_the_stream_goes_on(
    site: Site, server: RedisServer, room: str
):
    with site.open(f"/streams/{room}") as stream:
        site.post(f"/streams/{room}", "before")
        stream.collect(1)

        with server.away():
            assert site.post(f"/streams/{room}", "not sent") == 503
            with pytest.raises(redis.ConnectionError):
                connections(server)

        # Its data is there again.
        site.post(f"/streams/{room}", "after")
        assert [e.data for e in stream.collect(1)] == ["after"]
        stream.reconnect()
        site.post(f"/streams/{room}", "live")
        assert [e.data for e in stream.collect(1)] == ["live"]


def test_a_stream_that_is_opened_while_it_is_away_opens_when_it_is_back(
    site: Site, server: RedisServer, room: str
):
    with server.away():
        with (
            pytest.raises(MissingEvents, match="the app doesn't reach its Redis"),
            site.open(f"/streams/{room}", timeout=0.7),
        ):
            raise AssertionError("it has opened")
        waiting = site.open(f"/streams/{room}", wait_open=False)
        stream = waiting.__enter__()
        assert stream.status == 200
        assert stream.last_event_id == ""

    Deadline(10).until(lambda: stream.last_event_id, "it opens")
    site.post(f"/streams/{room}", "after")
    assert [e.data for e in stream.collect(1)] == ["after"]
    waiting.__exit__(None, None, None)


def test_while_it_hangs_sends_time_out_and_afterwards_the_stream_goes_on(
    site: Site, server: RedisServer, room: str
):
    with site.open(f"/streams/{room}") as stream:
        with server.hanging():
            assert site.post(f"/streams/{room}", "lost or late") == 503
        site.post(f"/streams/{room}", "after")

        # It may have carried out what it was told while it hung.
        seen = [stream.collect(1)[0].data]
        while seen[-1] != "after":
            seen += [e.data for e in stream.collect(1)]
        assert set(seen) <= {"lost or late", "after"}


@pytest.mark.parametrize("is_one", [False, True])
def test_a_lost_history_is_one_reset_for_a_client_that_comes_back(
    site: Site, server: RedisServer, room: str, prefix: str, is_one: bool
):
    with site.open(f"/streams/{room}") as stream:
        site.post(f"/streams/{room}", "lost")
        [lost] = stream.collect(1)
        stream.close()

        server.lose_history(room if is_one else None, prefix=prefix)
        stream.reconnect()
        site.post(f"/streams/{room}", "after")

        reset, after = stream.collect(2)
        assert (reset.name, json.loads(reset.data)["requested"]) == ("stream-reset", lost.id)
        assert after.data == "after"


def test_a_lost_history_is_one_reset_for_a_client_that_stays(
    site: Site, server: RedisServer, room: str
):
    with site.open(f"/streams/{room}") as stream:
        site.post(f"/streams/{room}", "lost")
        stream.collect(1)

        server.lose_history()
        site.post(f"/streams/{room}", "after")

        assert [e.name for e in stream.collect(2)] == ["stream-reset", "message"]


def test_the_history_of_one_stream_is_lost_and_no_other(server: RedisServer, prefix: str):
    with redis.Redis.from_url(server.url) as store:
        for stream_id in ("a", "b"):
            store.xadd(f"{prefix}:{{{stream_id}}}:log", {"x": "y"})

        server.lose_history("a", prefix=prefix)

        assert store.keys(f"{prefix}*") == [f"{prefix}:{{b}}:log".encode()]
    with pytest.raises(LookupError, match=f"no history of stream 'a' with prefix '{prefix}'"):
        server.lose_history("a", prefix=prefix)
    with pytest.raises(InvalidEvent, match="stream_id"):
        server.lose_history("")


def test_streams_of_one_test_are_none_of_the_next_one_s(site: Site, server: RedisServer):
    """As the fixture empties it between two tests that share a manager."""
    for _ in range(3):
        with site.open("/streams/same") as stream:
            site.post("/streams/same", "x")
            assert [e.name for e in stream.collect(1)] == ["message"]
        # Its channel is still subscribed, and hears it.
        site.post("/streams/same", "y")
        server.lose_history()
    assert threading.active_count() < 30
