"""A replica takes over behind one address, without the newest that its master acknowledged."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from streamy_redis.testing import RedisServer
from tests.deadline import Deadline
from tests.faults.proxy import Proxy
from tests.managers import Reader

from .conftest import Shell

pytestmark = pytest.mark.one_server


class Pair:
    """A master and its replica, behind one address."""

    def __init__(self, master: RedisServer, replica: RedisServer, proxy: Proxy) -> None:
        self.url = proxy.url
        self._proxy = proxy
        self._ports = [urlsplit(each.url).port or 0 for each in (master, replica)]
        self._replica = redis.Redis.from_url(replica.url)
        self._master = redis.Redis.from_url(master.url)
        # It waits 5 s for more replicas otherwise.
        self._master.config_set("repl-diskless-sync-delay", 0)
        self._replica.replicaof("127.0.0.1", str(self._ports[0]))
        self.replicate()

    def replicate(self) -> None:
        """Until the replica has everything."""
        Deadline(10).until(
            lambda: self._replica.info("replication").get("master_link_status") == "up"
        )
        # WAIT from here would say nothing of what others have written.
        written = self._master.info("replication")["master_repl_offset"]
        Deadline(10).until(
            lambda: self._replica.info("replication")["slave_repl_offset"] >= written
        )

    def lag(self) -> None:
        """From now on the replica gets nothing any more, and its master doesn't care."""
        self._replica.replicaof("NO", "ONE")

    def take_over(self) -> None:
        self._proxy.switch(self._ports[1])

    def refuse_writes(self) -> None:
        """As a master does that has lost its replicas, and is told to have one."""
        self._replica.config_set("min-replicas-to-write", 1)

    def accept_writes(self) -> None:
        self._replica.config_set("min-replicas-to-write", 0)

    def close(self) -> None:
        self._replica.close()
        self._master.close()


@pytest.fixture
def pair() -> Iterator[Pair]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(RedisServer()) for _ in range(2)]
        proxy = stack.enter_context(Proxy(urlsplit(servers[0].url).port or 0))
        pair = Pair(*servers, proxy)
        stack.callback(pair.close)
        yield pair


def numbers(first: int, last: int) -> list[str]:
    return [str(n) for n in range(first, last + 1)]


def told(reader: Reader) -> list[str]:
    """Data of events, and the reasons of resets."""
    return ["reset" if e.kind == "reset" else e.data for e in reader.received]


def test_nobody_skips_what_a_failover_lost(shell: Shell, pair: Pair):
    # Senders and readers in different managers, as in different processes.
    sender, web, other_web = (shell.manager(pair.url) for _ in range(3))
    ahead = shell.reader(web, "room")
    slow = shell.reader(shell.manager(pair.url, max_backlog=5), "room")
    slow.pause()
    ids = sender.send_events("room", numbers(1, 17))
    ahead.wait_for(17)
    pair.replicate()
    pair.lag()
    ids += sender.send_events("room", numbers(18, 110))
    ahead.wait_for(110)

    pair.take_over()
    sender.send_events("room", numbers(111, 115))
    slow.go_on()

    def last(reader: Reader) -> bool:
        return bool(reader.received) and reader.received[-1].data == "115"

    after = numbers(111, 115)
    Deadline(10).until(lambda: last(ahead), lambda: told(ahead))
    # The kept history again, as behind every reset, and no second one where it breaks off.
    assert told(ahead) == [*numbers(1, 110), "reset", *numbers(1, 17), *after]
    Deadline(10).until(lambda: last(slow), lambda: told(slow))
    assert told(slow).count("reset") == 1
    assert told(slow)[-5:] == after
    for cursor, seen in ((4, numbers(6, 17)), (16, [])):
        reader = shell.reader(other_web, "room", last_event_id=ids[cursor])
        reader.wait_for(len(seen) + 6)
        assert told(reader) == [*seen, "reset", *after]
        assert json.loads(reader.received[len(seen)].data)["requested"] == ids[16]
    newcomer = shell.reader(other_web, "room", replay="all")
    newcomer.wait_for(23)
    assert told(newcomer) == [*numbers(1, 17), "reset", *after]


@pytest.mark.parametrize("cursor", [4, 16, 109])
def test_who_comes_back_before_anything_is_sent_gets_one_reset(
    shell: Shell, pair: Pair, cursor: int
):
    """To a process that knows nothing; then the sender does who knows."""
    sender, web = shell.manager(pair.url), shell.manager(pair.url)
    ids = sender.send_events("room", numbers(1, 17))
    pair.replicate()
    pair.lag()
    ids += sender.send_events("room", numbers(18, 110))
    pair.take_over()
    Deadline(10).until(lambda: sender.info("room").length == 17)

    reader = shell.reader(web, "room", last_event_id=ids[cursor])
    kept = numbers(cursor + 2, 17) if cursor < 17 else ["reset", *numbers(1, 17)]
    reader.wait_for(len(kept))
    assert reader.gets_no_more(0.3)
    sender.send_event("room", "111")

    reader.wait_for(len(kept) + 1)
    Deadline(5).until(lambda: told(reader)[-1] == "111")
    assert told(reader) == [*kept, *(["reset"] if cursor < 17 else []), "111"]


def test_a_reader_remembers_what_its_sender_took_with_it(shell: Shell, pair: Pair):
    sender, web, other_web = (shell.manager(pair.url) for _ in range(3))
    witness = shell.reader(web, "room")
    ids = sender.send_events("room", numbers(1, 5))
    pair.replicate()
    pair.lag()
    sender.send_events("room", numbers(6, 9))
    witness.wait_for(9)
    sender.close()

    pair.take_over()
    Deadline(10).until(lambda: "reset" in told(witness))
    shell.manager(pair.url).send_event("room", "of another")

    behind = shell.reader(other_web, "room", last_event_id=ids[2])
    behind.wait_for(4)
    assert told(behind) == ["4", "5", "reset", "of another"]
    Deadline(5).until(lambda: told(witness)[-1] == "of another")
    assert told(witness).count("reset") == 1


def test_a_failover_that_lost_nothing_is_no_gap(shell: Shell, pair: Pair):
    sender, web = shell.manager(pair.url), shell.manager(pair.url)
    reader = shell.reader(web, "room")
    ids = sender.send_events("room", numbers(1, 17))
    reader.wait_for(17)
    pair.replicate()
    pair.lag()

    pair.take_over()
    sender.send_events("room", numbers(18, 20))

    reader.wait_for(20)
    assert told(reader) == numbers(1, 20)
    behind = shell.reader(web, "room", last_event_id=ids[4])
    behind.wait_for(15)
    assert told(behind) == numbers(6, 20)


def test_an_end_that_a_failover_lost_is_no_end_of_the_new_history(shell: Shell, pair: Any):
    sender, web = shell.manager(pair.url), shell.manager(pair.url)
    ids = sender.send_events("room", ["kept"])
    pair.replicate()
    pair.lag()
    assert sender.end_stream("room")
    pair.take_over()

    sender.send_event("room", "later")

    behind = shell.reader(web, "room", last_event_id=ids[0])
    behind.wait_for(2)
    assert told(behind) == ["reset", "later"]


def test_a_process_remembers_what_it_sent_before_it_was_closed(shell: Shell, pair: Pair):
    """As jobs do, which use one manager in one event loop after another."""
    sender, web = shell.manager(pair.url), shell.manager(pair.url)
    ids = sender.send_events("room", numbers(1, 3))
    pair.replicate()
    pair.lag()
    sender.send_events("room", numbers(4, 5))
    sender.close()
    pair.take_over()

    sender.send_event("room", "6")

    behind = shell.reader(web, "room", last_event_id=ids[1])
    behind.wait_for(3)
    assert told(behind) == ["3", "reset", "6"]


def test_what_a_process_has_heard_it_knows_when_it_sends(shell: Shell, pair: Pair):
    sender, web, other_web = (shell.manager(pair.url) for _ in range(3))
    reader = shell.reader(web, "room")
    ids = sender.send_events("room", numbers(1, 3))
    pair.replicate()
    pair.lag()
    sender.send_events("room", numbers(4, 6))
    reader.wait_for(6)
    reader.leave()
    sender.close()
    pair.take_over()

    web.send_event("room", "7")

    behind = shell.reader(other_web, "room", last_event_id=ids[1])
    behind.wait_for(3)
    assert told(behind) == ["3", "reset", "7"]


def test_what_a_process_has_sent_it_knows_when_it_reads(shell: Shell, pair: Pair):
    sender, other = shell.manager(pair.url), shell.manager(pair.url)
    ids = sender.send_events("room", numbers(1, 3))
    pair.replicate()
    pair.lag()
    sender.send_events("room", numbers(4, 6))
    pair.take_over()

    behind = shell.reader(sender, "room", last_event_id=ids[1])
    behind.wait_for(2)
    other.send_event("room", "of another")

    Deadline(5).until(lambda: told(behind)[-1] == "of another")
    assert told(behind) == ["3", "reset", "of another"]


def test_a_new_master_that_takes_no_writes_is_read_all_the_same(shell: Shell, pair: Pair):
    sender, web = shell.manager(pair.url), shell.manager(pair.url)
    reader = shell.reader(web, "room")
    sender.send_events("room", numbers(1, 2))
    pair.replicate()
    pair.lag()
    sender.send_event("room", "3")
    reader.wait_for(3)
    pair.refuse_writes()
    pair.take_over()

    newcomer = shell.reader(web, "room", replay="all")

    assert [event.data for event in newcomer.wait_for(2)] == ["1", "2"]
    pair.accept_writes()
    sender.send_event("room", "4")
    Deadline(5).until(lambda: told(newcomer)[-1] == "4")
    assert told(newcomer) == ["1", "2", "reset", "4"]
