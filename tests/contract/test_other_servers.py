"""A server of another kind behind a plain URL: a cluster's node, a replica, a Sentinel.

Whoever sends or subscribes is told at once, and what to use instead; pages wait, the log is quiet.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.crc import key_slot

from streamy_redis import RedisUnavailable
from tests.child import Child
from tests.deadline import Deadline
from tests.ports import free_port
from tests.servers import RedisServer, wheel_binary

from .conftest import Shell

pytestmark = pytest.mark.one_server

HALF = 8192
CALLS = ["send_event", "end_stream", "delete_stream", "info"]


def cluster_node() -> RedisServer:
    bus = str(free_port())
    return RedisServer(arguments=("--cluster-enabled", "yes", "--cluster-port", bus))


@pytest.fixture(scope="module")
def node() -> Iterator[RedisServer]:
    """The first of two nodes, with half of the slots."""
    with cluster_node() as first, cluster_node() as second:
        with first.connect() as one, second.connect() as two:
            one.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, HALF - 1)
            two.execute_command("CLUSTER", "ADDSLOTSRANGE", HALF, 2 * HALF - 1)
            one.execute_command("CLUSTER", "MEET", "127.0.0.1", second.port, second.arguments[-1])
            Deadline(20).until(lambda: one.cluster("INFO")["cluster_state"] == "ok")
        yield first


@pytest.fixture
def elsewhere(shell: Shell) -> str:
    """A stream whose slot the other node has."""
    return next(name for name in map(str, range(100)) if key_slot(shell.log(name).encode()) >= HALF)


@pytest.fixture
def here(shell: Shell) -> str:
    return next(name for name in map(str, range(100)) if key_slot(shell.log(name).encode()) < HALF)


def refused_at_once(call: Any) -> str:
    start = time.monotonic()
    with pytest.raises(RedisUnavailable) as caught:
        call()
    assert time.monotonic() - start < 1, "send_timeout is 5 s, and the retries take 0.35"
    return str(caught.value)


def call(streams: Any, method: str, stream_id: str) -> None:
    getattr(streams, method)(stream_id, *(["x"] if method == "send_event" else []))


@pytest.mark.parametrize("method", CALLS)
def test_what_another_node_has_is_one_clear_error(
    shell: Shell, node: RedisServer, elsewhere: str, method: str
):
    streams = shell.manager(node.url)

    said = refused_at_once(lambda: call(streams, method, elsewhere))

    assert "MOVED" in said
    assert "Redis Cluster" in said
    assert shell.log(elsewhere) in said


def test_a_subscription_to_what_another_node_has_is_refused_at_once(
    shell: Shell, node: RedisServer, elsewhere: str
):
    streams = shell.manager(node.url)

    said = refused_at_once(lambda: streams.subscribe(elsewhere).__enter__())

    assert "MOVED" in said
    assert "Redis Cluster" in said


def test_waiting_readers_are_no_loop_in_the_log(
    shell: Shell, node: RedisServer, elsewhere: str, here: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO, "streamy_redis")
    # Readable in between, so that what is refused looks new each time.
    streams = shell.manager(node.url, position_check_interval=0.1)
    shell.reader(streams, here)
    for _ in range(4):
        refused_at_once(lambda: streams.subscribe(elsewhere).__enter__())
        streams.send_event(here, "x")

    told = [record.getMessage() for record in caplog.records if "MOVED" in record.getMessage()]
    assert len(told) == 1
    assert "Redis Cluster" in told[0]
    assert not [record for record in caplog.records if record.exc_info]


def test_a_cluster_that_is_down_is_named_too(shell: Shell):
    with cluster_node() as alone:
        streams = shell.manager(alone.url)

        said = [
            refused_at_once(lambda: streams.send_event("room", "x")),
            refused_at_once(lambda: streams.subscribe("room").__enter__()),
        ]
        streams.close()

    assert all("CLUSTERDOWN" in each and "Redis Cluster" in each for each in said), said


@pytest.fixture
def sentinel_url(tmp_path: Path) -> Iterator[str]:
    settings, port = tmp_path / "sentinel.conf", free_port()
    settings.touch()
    command = [wheel_binary(), str(settings), "--sentinel", "--port", str(port)]
    child = Child(command, tmp_path / "log")
    with contextlib.closing(redis.Redis(port=port)) as probe:
        Deadline(15).until(lambda: answers(probe), lambda: child.output)
    yield f"redis://127.0.0.1:{port}"
    child.stop()


def answers(probe: redis.Redis) -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(probe.ping())
    return False


@pytest.mark.parametrize("database", ["", "/3"])
def test_a_sentinel_is_named_too(shell: Shell, sentinel_url: str, database: str):
    streams = shell.manager(sentinel_url + database)

    said = [
        refused_at_once(lambda: streams.send_event("room", "x")),
        refused_at_once(lambda: streams.subscribe("room").__enter__()),
    ]
    streams.close()

    assert all("Sentinel" in each for each in said), said


def test_a_replica_that_stays_one_is_named_when_the_retries_are_over(
    shell: Shell, redis_server: RedisServer
):
    with RedisServer(arguments=("--replicaof", f"127.0.0.1 {redis_server.port}")) as replica:
        streams = shell.manager(replica.url)

        said = refused_at_once(lambda: streams.send_event("room", "x"))
        streams.close()

    assert "read only replica" in said
    assert "name its master" in said


def test_a_replica_that_becomes_a_master_is_waited_for(shell: Shell, redis_server: RedisServer):
    with RedisServer(arguments=("--replicaof", f"127.0.0.1 {redis_server.port}")) as replica:
        streams = shell.manager(replica.url, max_retries=20)

        def promote() -> None:
            with replica.connect() as admin:
                admin.replicaof("NO", "ONE")

        promotion = threading.Timer(0.3, promote)
        promotion.start()
        assert streams.send_event("room", "x")
        promotion.join()
        streams.close()
