"""A Redis that answers, and refuses: documented errors, patient readers, no tight loop."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest
import redis

from streamy_redis import StreamyError
from tests.deadline import Deadline
from tests.exactly_once import Delivery

from .long_scenes import LongScenes
from .stage import Scene, Stage

# Commands a second of one process whose every command is refused: a reconnect costs six.
COMMANDS_A_SECOND = 40
Cause = Callable[[Scene], Iterator[None]]


def out_of_memory(scene: Scene) -> Iterator[None]:
    scene.admin.config_set("maxmemory", 1)
    yield
    scene.admin.config_set("maxmemory", 0)


def wrong_type(scene: Scene) -> Iterator[None]:
    """Somebody else's value at the key; the history comes back afterwards."""
    kept = f"{scene.log_key} kept"

    def swap() -> None:
        with scene.admin.pipeline() as together:
            together.rename(scene.log_key, kept)
            together.set(scene.log_key, "a string")
            together.execute()

    scene.paused(swap)
    yield
    scene.admin.rename(kept, scene.log_key)


def _default_user(scene: Scene, *rules: str) -> None:
    scene.admin.execute_command("ACL", "SETUSER", "default", *rules)


def no_permission_for_the_key(scene: Scene) -> Iterator[None]:
    _default_user(scene, "resetkeys", "~elsewhere:*")
    yield
    _default_user(scene, "allkeys")


def no_permission_for_the_channel(scene: Scene) -> Iterator[None]:
    """Redis closes the connections of those who listen to it, and refuses new ones."""
    _default_user(scene, "resetchannels")
    yield
    _default_user(scene, "allchannels")


def no_permission_for_scripts(scene: Scene) -> Iterator[None]:
    _default_user(scene, "-evalsha", "-eval")
    yield
    _default_user(scene, "+evalsha", "+eval")


def no_permission_to_publish(scene: Scene) -> Iterator[None]:
    """Refused in the middle of the script: what was stored before stays, and is a repeat."""
    _default_user(scene, "-publish")
    yield
    _default_user(scene, "+publish")


def a_new_password(scene: Scene) -> Iterator[None]:
    _default_user(scene, "resetpass", ">secret")
    scene.admin.client_kill_filter(_type="normal", skipme=True)
    yield
    _default_user(scene, "nopass")


def read_only(scene: Scene) -> Iterator[None]:
    scene.admin.replicaof("127.0.0.1", "1")
    yield
    scene.admin.replicaof("NO", "ONE")


def master_down(scene: Scene) -> Iterator[None]:
    scene.admin.config_set("replica-serve-stale-data", "no")
    scene.admin.replicaof("127.0.0.1", "1")
    yield
    scene.admin.replicaof("NO", "ONE")
    scene.admin.config_set("replica-serve-stale-data", "yes")


def no_replicas(scene: Scene) -> Iterator[None]:
    scene.admin.config_set("min-replicas-to-write", 1)
    yield
    scene.admin.config_set("min-replicas-to-write", 0)


def busy(scene: Scene) -> Iterator[None]:
    """A script that never ends, until it is killed."""
    scene.admin.config_set("busy-reply-threshold", 50)

    def run() -> None:
        with scene.stage.admin() as other, pytest.raises(redis.ResponseError):
            other.eval("while true do end", 0)

    thread = threading.Thread(target=run)
    thread.start()

    def is_busy() -> bool:
        try:
            scene.admin.exists("x")
        except redis.ResponseError:
            return True
        return False

    Deadline(5).until(is_busy)
    yield
    scene.admin.script_kill()
    thread.join(5)
    scene.admin.config_set("busy-reply-threshold", 5000)


def max_clients(scene: Scene) -> Iterator[None]:
    scene.admin.config_set("maxclients", 1)
    scene.admin.client_kill_filter(_type="normal", skipme=True)
    scene.admin.client_kill_filter(_type="pubsub")
    yield
    scene.admin.config_set("maxclients", 10_000)


def loading(scene: Scene) -> Iterator[None]:
    """Killed, and started again with so much to read that it takes ten seconds, unless helped."""
    server = scene.stage.redis
    with scene.admin.pipeline(transaction=False) as pipeline:
        for n in range(20_000):
            pipeline.set(f"ballast {n}", "x" * 100)
        pipeline.execute()
    # Of a file of single commands it would answer only once in 1,024 of them.
    scene.admin.bgrewriteaof()
    rewriting = ("aof_rewrite_in_progress", "aof_rewrite_scheduled")
    Deadline(10).until(lambda: not any(scene.admin.info("persistence")[key] for key in rewriting))
    server.kill()
    slowly = ("--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024")
    server.start(*slowly, ready=b"-LOADING")
    yield
    assert server.answers(b"-LOADING"), "it has been loading all the time"
    with contextlib.closing(socket.create_connection(("127.0.0.1", server.port), 5)) as plain:
        # redis-py itself would wait until nothing is loading any more.
        plain.sendall(b"AUTH admin any\r\nCONFIG SET key-load-delay 0\r\n")
        assert plain.recv(64).startswith(b"+OK")
    Deadline(5).until(server.answers)
    scene.admin.delete(*(f"ballast {n}" for n in range(20_000)))


def misconf(scene: Scene) -> Iterator[None]:
    """Snapshots are wanted, and none can be written: a directory is where the file should be."""
    in_the_way = scene.stage.redis.directory / "dump.rdb"
    # The snapshot with which the last one ended.
    in_the_way.unlink(missing_ok=True)
    in_the_way.mkdir()
    scene.admin.config_set("save", "3600 1000000")
    assert scene.admin.config_get("stop-writes-on-bgsave-error") == {
        "stop-writes-on-bgsave-error": "yes"
    }
    scene.admin.bgsave()
    Deadline(5).until(lambda: _last_save(scene) == "err")
    yield
    in_the_way.rmdir()
    scene.admin.bgsave()
    Deadline(5).until(lambda: _last_save(scene) == "ok")
    scene.admin.config_set("save", "")


def _last_save(scene: Scene) -> str:
    told: str = scene.admin.info("persistence")["rdb_last_bgsave_status"]
    return told


# What a person has to read in the error; the key's name is in each.
CAUSES: dict[str, tuple[Cause, str]] = {
    "OOM": (out_of_memory, "maxmemory"),
    "WRONGTYPE": (wrong_type, "wrong kind of value"),
    "NOPERM key": (no_permission_for_the_key, "permission.*key"),
    "NOPERM channel": (no_permission_for_the_channel, "permission.*channel"),
    "NOPERM scripts": (no_permission_for_scripts, "permission.*eval"),
    "NOPERM publish": (no_permission_to_publish, "permission.*publish"),
    "WRONGPASS": (a_new_password, "(?i)auth|password"),
    "READONLY": (read_only, "read only replica"),
    "MASTERDOWN": (master_down, "MASTER is down"),
    "NOREPLICAS": (no_replicas, "NOREPLICAS"),
    "LOADING": (loading, "loading the dataset"),
    "BUSY": (busy, "BUSY"),
    "MISCONF": (misconf, "MISCONF"),
    "max clients": (max_clients, "max number of clients"),
}


# Several in one scene, one after another: each must have healed before the next.
GROUPS = {
    "permissions": ["NOPERM key", "NOPERM channel", "NOPERM scripts", "NOPERM publish"],
    "limits": ["OOM", "NOREPLICAS", "MISCONF", "max clients", "WRONGPASS"],
    "states": ["READONLY", "MASTERDOWN", "LOADING", "BUSY"],
    "one key": ["WRONGTYPE"],
}
assert {name for names in GROUPS.values() for name in names} == set(CAUSES)
# Redis refuses one stream only: whoever is on another has to be served as ever.
OF_ONE_STREAM = ("one key",)
# Those that cut the readers' connections themselves, or leave nobody to ask for it.
CUTS_BY_ITSELF = ("BUSY", "LOADING", "max clients", "NOPERM channel")
# Nothing is cut, nothing is published: nobody who only listens can lose anything.
HARMLESS_TO_WHO_LISTENS = ("BUSY",)


def refused(stage: Stage, group: str) -> None:
    with stage.scene(sender_url=stage.senders.url, send_timeout=1.5) as scene:
        # The channels of the stage's warm-up are left seconds later, with a command each.
        Deadline(8).until(lambda: len(scene.admin.pubsub_channels()) < 6, every=0.1)
        with contextlib.nullcontext() if group in OF_ONE_STREAM else scene.redis_away():
            for name in GROUPS[group]:
                try:
                    refuse(scene, name)
                except AssertionError as error:
                    error.add_note(f"while Redis refused with: {name}")
                    raise
        scene.finish()
        assert scene.is_connected()
        scene.assert_stored_once()


LONG = {f"refused by {group}": partial(refused, group=group) for group in GROUPS}


@pytest.mark.parametrize("name", LONG)
def test_refused(long_scenes: LongScenes, name: str):
    long_scenes.result(name)


def refuse(scene: Scene, name: str) -> None:
    """One cause, from its beginning until everything is well again."""
    cause, says = CAUSES[name]
    scene.sender.errors.clear()
    # What restarts it after an error comes too late for what is sent first.
    scene.naive.may_restart.clear()
    missed = naively_missed(scene)
    with contextmanager(cause)(scene):
        Deadline(4).until(lambda: scene.sender.errors, "senders are told")
        if name not in CUTS_BY_ITSELF:
            # Readers have to read the log now, and can't.
            scene.admin.client_kill_filter(_type="pubsub")
        before = [site.proxy.count() for site in scene.stage.sites]
        start = time.monotonic()
        Deadline(0.7).stays(scene.is_connected, lambda: scene.browsers, every=0.1)
        scene.keep_alives_go_on()
        asked = [site.proxy.count() for site in scene.stage.sites]
        took = time.monotonic() - start

    sent = len(scene.sender.sent)
    Deadline(4).until(lambda: len(scene.sender.sent) > sent, "sends go on")
    scene.burst(5)
    scene.naive.may_restart.set()
    scene.wait_complete(3)

    if name not in HARMLESS_TO_WHO_LISTENS:
        assert naively_missed(scene) > missed, "the checker has no teeth"
    rates = [(now - was) / took for was, now in zip(before, asked, strict=True)]
    assert max(rates) < COMMANDS_A_SECOND, f"a tight loop: {rates} commands a second"
    told = {str(error) for error in scene.sender.errors}
    assert all(isinstance(error, StreamyError) for error in scene.sender.errors)
    assert all(scene.log_key in each for each in told), told
    assert any(re.search(says, each) for each in told), told


def naively_missed(scene: Scene) -> int:
    return len(Delivery(scene.sender.sent, scene.naive.events).missing)


def test_scripts_that_are_flushed_again_and_again(scene: Scene):
    for n in range(20):
        scene.admin.script_flush()
        if n % 10 == 5:
            scene.admin.client_kill_filter(_type="pubsub")
        scene.burst(3)
        Deadline(0.05).stays(lambda: True)
    scene.wait_complete(1)

    sent = scene.finish()
    assert not scene.sender.errors
    assert scene.is_connected()
    scene.assert_stored_once()
    assert scene.naive.assert_caught(sent).missing


def test_junk_on_the_channel_and_in_the_log(stage: Stage):
    """Redis is there all the time: bystanders are quick, although one piece is 3 MB."""
    with stage.scene() as scene:
        newest = scene.sender.sent.ids[-1]
        epoch, seq, _tag = newest.split("-")
        frame = f"data: forged\nid: {epoch}-{int(seq) + 5000}-0badcafe\n\n".encode()
        junk = [
            b"",
            b"\x00\xff\xfe" * 100,
            b"data: no id\n\n",
            b"id: 1-1-00000000\n",
            b"data: x\nid: %s\n\n" % newest.encode(),
            frame[:-1],
            frame + frame,
            b"*3\r\n$7\r\nmessage\r\n",
            b"x" * 3_000_000,
            b'{"type": "chat"}',
        ]
        for payload in junk:
            scene.admin.publish(scene.channel, payload)
            scene.admin.xadd(scene.log_key, {b"foreign": payload[:100]})
        scene.wait_complete(3)

        sent = scene.finish()
        assert scene.is_connected()
        assert scene.naive.assert_caught(sent).foreign
