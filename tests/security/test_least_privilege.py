"""The Redis user of docs/security.md: it can do all that is needed, and nothing can be left out."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable
from typing import Any

import pytest
import redis
from flask import Flask

from streamy_redis import AsyncStreamManager, RedisUnavailable, StreamManager
from tests.deadline import Deadline
from tests.event_stream import events_of
from tests.managers import Reader

from .conftest import PASSWORD, PERMISSIONS, RULES, GuardedServer, NewManager

NewReader = Callable[..., Reader]

# These are used for reading only, which is tried again and again; the reason is logged, once.
READ = ["+xrange", "+multi", "+exec", "+subscribe", "+unsubscribe", "+ping"]
# Only after a failover that lost something.
GIVING_UP = "+xdel"
COMMANDED = [rule for rule in PERMISSIONS if rule not in (*READ, GIVING_UP)]
# How a refusal reads, inside scripts as well.
REFUSED = "permission|user executing the script can't"


@pytest.fixture(autouse=True)
def _nothing_there(guarded: GuardedServer) -> None:
    """No script is known yet either, as after a restart."""
    guarded.admin.flushall()
    guarded.admin.script_flush()


def command_everything(manager: Any) -> None:
    """Every method that asks Redis and doesn't listen. The history holds three events."""
    first = manager.send_event("room", "a", idempotency_key="k")
    assert manager.send_event("room", "a", idempotency_key="k") == first
    manager.send_events("room", ["b", "c", "d"])
    assert manager.send_event("room", "a", idempotency_key="k") != first
    assert manager.info("room").length == 3
    assert manager.end_stream("room")
    assert manager.delete_stream("room")


def test_the_documented_user_can_do_everything(
    guarded: GuardedServer,
    new_manager: NewManager,
    new_reader: NewReader,
    logged: Callable[[], str],
):
    guarded.allow(RULES)
    guarded.admin.execute_command("ACL", "LOG", "RESET")
    manager = new_manager(history_length=3)
    command_everything(manager)

    reader = new_reader(manager, "hall")
    ids = [manager.send_event("hall", str(n)) for n in range(3)]
    assert [event.id for event in reader.wait_for(3)] == ids
    late = new_reader(manager, "hall", replay=2)
    assert [event.id for event in late.wait_for(2)] == ids[1:]
    resumed = new_reader(manager, "hall", last_event_id=ids[0])
    assert [event.id for event in resumed.wait_for(2)] == ids[1:]
    # A foreign entry makes the script look for the newest of ours.
    guarded.admin.xadd("streamy:{hall}:log", {"foreign": "x"})
    guarded.admin.client_kill_filter(_type="pubsub")
    roll_back(guarded, manager, reader)
    manager.end_stream("hall")
    assert reader.wait_ended()[-1].kind == "end"
    # The channel is left after two seconds, and a quiet connection asked after three.
    waiting = new_reader(manager, "quiet")
    Deadline(10).until(lambda: asked(guarded, "ping") and asked(guarded, "unsubscribe"))

    assert waiting.gets_no_more()
    # redis-py introduces itself, and takes no for an answer.
    denied = {entry["object"] for entry in guarded.admin.acl_log()}
    assert denied <= {"client|setinfo"}
    assert "NOPERM" not in logged()


def roll_back(guarded: GuardedServer, manager: Any, reader: Reader) -> None:
    """A failover, that takes an event away which the reader has received."""
    image = guarded.admin.dump("streamy:{hall}:log")
    lost = manager.send_event("hall", "lost")
    Deadline(5).until(lambda: lost in reader.ids)
    guarded.admin.restore("streamy:{hall}:log", 0, image, replace=True)
    guarded.admin.client_kill_filter(_type="pubsub")
    Deadline(5).until(lambda: "reset" in reader.kinds)


def test_without_it_a_history_that_was_cut_short_is_shown_all_the_same(
    guarded: GuardedServer,
    new_manager: NewManager,
    new_reader: NewReader,
    logged: Callable[[], str],
):
    guarded.allow([rule for rule in RULES if rule != GIVING_UP])
    manager = new_manager()
    reader = new_reader(manager, "hall")
    manager.send_event("hall", "kept")

    roll_back(guarded, manager, reader)

    [line] = [line for line in logged().splitlines() if "tried again" in line]
    assert_names(GIVING_UP, line, guarded)


def asked(guarded: GuardedServer, command: str) -> bool:
    return f"cmdstat_{command}" in guarded.admin.info("commandstats")


@pytest.mark.parametrize("kind", ["flask", "starlette"])
def test_the_documented_user_serves_responses(guarded: GuardedServer, kind: str):
    guarded.allow(RULES)
    with StreamManager(guarded.url()) as streams:
        ids = streams.send_events("room", ["a", "b"])
        streams.end_stream("room", "bye")

        body = flask_body(streams) if kind == "flask" else asyncio.run(starlette_body(guarded))

    assert [e.data for e in events_of(body)] == ["{}", "a", "b", "bye"]
    assert [e.last_event_id for e in events_of(body)][1:3] == ids


def flask_body(streams: StreamManager) -> bytes:
    app = Flask(__name__)
    app.add_url_rule("/", view_func=lambda: streams.get_stream("room", replay="all"))
    return app.test_client().get("/").data


async def starlette_body(guarded: GuardedServer) -> bytes:
    body = bytearray()

    async def receive() -> Any:
        await asyncio.sleep(60)

    async def send(message: Any) -> None:
        body.extend(message.get("body", b""))

    async with AsyncStreamManager(guarded.url()) as streams:
        response = streams.get_stream("room", replay="all")
        await response({"type": "http", "method": "GET", "headers": []}, receive, send)
    return bytes(body)


@pytest.mark.parametrize("left_out", COMMANDED)
def test_without_it_a_command_is_refused(
    guarded: GuardedServer, new_manager: NewManager, left_out: str
):
    guarded.allow([rule for rule in RULES if rule != left_out])

    with pytest.raises(RedisUnavailable, match=r"'streamy:\{room\}:log'") as refused:
        command_everything(new_manager(history_length=3))

    assert_names(left_out, str(refused.value), guarded)


def assert_names(left_out: str, says: str, guarded: GuardedServer) -> None:
    assert re.search(REFUSED, says), says
    # Redis 7.0 doesn't say which command a script may not run.
    subject = {"~": "key", "&": "channel"}.get(left_out[0], left_out[1:])
    assert subject in says or guarded.is_redis, says


@pytest.mark.parametrize("left_out", READ)
def test_without_it_reading_is_refused(
    guarded: GuardedServer,
    new_manager: NewManager,
    new_reader: NewReader,
    logged: Callable[[], str],
    left_out: str,
):
    guarded.allow([rule for rule in RULES if rule != left_out])
    event_id, _ = new_manager().send_events("room", ["sends", "work"])
    manager = new_manager(send_timeout=0.5)

    # A subscription that can't begin is an error; a response would wait, with keep-alives.
    can_begin = left_out in ("+unsubscribe", "+ping")
    expected = contextlib.nullcontext() if can_begin else pytest.raises(RedisUnavailable)
    with expected:
        new_reader(manager, "room", last_event_id=event_id).leave()
    if can_begin:
        new_reader(manager, "quiet")

    Deadline(8).until(lambda: "tried again" in logged())
    [line] = [line for line in logged().splitlines() if "tried again" in line]
    assert_names(left_out, line, guarded)


def test_another_prefix_is_out_of_reach(
    guarded: GuardedServer,
    new_manager: NewManager,
    new_reader: NewReader,
    logged: Callable[[], str],
):
    guarded.allow(RULES)
    others = [rule.replace("streamy:", "streamy-2:") for rule in RULES]
    guarded.allow(others, name="neighbour")
    mine, neighbour = new_manager(), new_manager(guarded.url("neighbour"), prefix="streamy-2")
    intruder = new_manager(prefix="streamy-2", send_timeout=0.5)
    neighbour.send_event("room", "theirs")
    mine.send_event("room", "mine")

    for refused in (
        lambda: intruder.send_event("room", "x"),
        lambda: intruder.end_stream("room"),
        lambda: intruder.delete_stream("room"),
        lambda: intruder.info("room"),
    ):
        with pytest.raises(RedisUnavailable, match="permission"):
            refused()
    with pytest.raises(RedisUnavailable):
        new_reader(intruder, "room", replay="all")

    assert "Redis refused a channel" in logged()
    assert neighbour.info("room").length == 1
    assert mine.info("room").length == 1


@pytest.mark.parametrize(
    "command",
    [
        "KEYS *",
        "SCAN 0",
        "FLUSHALL",
        "CONFIG GET *",
        "ACL LIST",
        "CLIENT LIST",
        "MONITOR",
        "PSUBSCRIBE *",
        "PUBSUB CHANNELS",
        "GET streamy:{room}:log",
        "XREAD STREAMS streamy:{room}:log 0",
        "XRANGE other - +",
        "PUBLISH other x",
        "EVAL return(redis.call('get','other')) 0",
        "SCRIPT FLUSH",
        "XINFO GROUPS streamy:{room}:log",
        "SELECT 1",
    ],
)
def test_everything_else_is_refused(guarded: GuardedServer, command: str):
    guarded.allow(RULES)
    user = redis.Redis.from_url(guarded.url(), protocol=2)

    with contextlib.closing(user), pytest.raises(redis.ResponseError) as refused:
        user.execute_command(*command.split())

    assert re.search(REFUSED, str(refused.value))


def test_a_wrong_password_is_told_and_shown_nowhere(
    guarded: GuardedServer, new_manager: NewManager, logged: Callable[[], str]
):
    guarded.allow(RULES)
    manager = new_manager(guarded.url(password="hunter2"))

    with pytest.raises(RedisUnavailable, match=r"(?i)password") as refused:
        manager.send_event("room", "x")

    for text in (str(refused.value), repr(refused.value), logged()):
        assert "hunter2" not in text
        assert PASSWORD not in text
