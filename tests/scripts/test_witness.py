"""What a log does that doesn't hold what a sender or a reader knows it to have held."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamy_redis.core.history import HistoryRequest
from streamy_redis.core.publication import Position
from tests.core.redis_model import RedisModel

from .conftest import Log, epoch_of, seq_of


class Failover:
    """A log of some events, and the image of it that a replica has."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.kept = [self.send() for _ in range(3)]
        self._image = log.store.dump(log.key)

    def send(self, witness: str = "") -> str:
        """The event id."""
        _, position = self.log.publish("x", witness=witness)
        tag = next(e.frame for e in self.log.entries if e.id == position).split(b"-")[-1]
        return f"{position}-{tag.strip().decode()}"

    def take_over(self) -> None:
        self.log.store.restore(self.log.key, 0, self._image, replace=True)


@pytest.fixture
def failover(log: Log) -> Failover:
    if "memory" in str(log.store.connection_pool):
        pytest.skip("fakeredis has no RESTORE")
    return Failover(log)


Tell = Callable[[Log, str], object]
TELLERS = {
    "a sender": lambda log, witness: log.publish("new", witness=witness),
    "a reader": lambda log, witness: (log.read("all", witness=witness), log.publish("new")),
}


@pytest.fixture(params=list(TELLERS))
def tell(request: pytest.FixtureRequest) -> Tell:
    """Somebody names the witness, and then there is a new event."""
    return TELLERS[request.param]


def begins_a_life(log: Log) -> bool:
    """Whether its last entry is the first of a new life, behind the place of what was lost."""
    return epoch_of(log.ids[-1]) > epoch_of(log.ids[0]) and seq_of(log.ids[-1]) == 2


def test_what_a_failover_lost_begins_a_new_life(failover: Failover, tell: Tell):
    lost = [failover.send() for _ in range(2)][-1]
    failover.take_over()

    tell(failover.log, lost)

    assert begins_a_life(failover.log)
    assert failover.log.ids[:3] == [each.rpartition("-")[0] for each in failover.kept]


def test_what_was_written_over_begins_a_new_life(failover: Failover, tell: Tell):
    lost = failover.send()
    failover.take_over()
    [failover.send() for _ in range(3)]

    tell(failover.log, lost)

    assert begins_a_life(failover.log)


def test_it_begins_once_however_many_tell_it(failover: Failover, tell: Tell):
    lost = failover.send()
    failover.take_over()
    tell(failover.log, lost)

    tell(failover.log, lost)

    lives = [epoch_of(each) for each in failover.log.ids]
    assert lives == [lives[0]] * 3 + [lives[-1]] * 2


def test_it_is_later_than_the_life_that_was_lost_on_a_server_whose_clock_is_behind(
    failover: Failover, tell: Tell
):
    """Another life had begun, of which the new master knows nothing."""
    epoch = epoch_of(failover.kept[0].rpartition("-")[0])
    later = epoch + 10_000_000_000

    tell(failover.log, f"{later}-7-0123abcd")

    assert epoch_of(failover.log.ids[-1]) == later + 1


@pytest.mark.parametrize("which", [0, 1, 2])
def test_what_the_log_holds_changes_nothing(failover: Failover, tell: Tell, which: int):
    tell(failover.log, failover.kept[which])

    assert [seq_of(i) for i in failover.log.ids] == [1, 2, 3, 4]


@pytest.mark.parametrize("keep", [2, 1, 0])
def test_what_was_trimmed_changes_nothing(failover: Failover, tell: Tell, keep: int):
    failover.log.store.xtrim(failover.log.key, maxlen=keep, approximate=False)

    tell(failover.log, failover.kept[0])

    assert [seq_of(i) for i in failover.log.ids] == [*range(4 - keep, 4), 4 if keep else 1]


def test_the_entry_behind_it_remembers_what_was_trimmed_and_written_over(
    failover: Failover, tell: Tell
):
    failover.log.store.xtrim(failover.log.key, maxlen=2, approximate=False)

    tell(failover.log, failover.kept[0][:-8] + "00000000")

    assert begins_a_life(failover.log)


@pytest.mark.parametrize("witness", ["", "x", "1-1-0123abcd", "1800000000000000-1"])
def test_what_is_no_position_of_a_life_that_may_be_lost_changes_nothing(
    failover: Failover, tell: Tell, witness: str
):
    tell(failover.log, witness)

    assert [seq_of(i) for i in failover.log.ids] == [1, 2, 3, 4]


def test_where_there_is_no_log_a_reader_writes_none(log: Log):
    log.read("all", witness="1800000000000000-5-0123abcd")

    assert not log.store.exists(log.key)


def test_a_reader_tells_of_an_ended_log_nothing_since_nothing_can_follow(failover: Failover):
    lost = failover.send()
    failover.take_over()
    failover.log.end()
    before = failover.log.read("all").generated

    assert failover.log.read("all", witness=lost).generated == before


def test_a_reader_leaves_what_is_there_and_its_time_to_live(failover: Failover):
    lost = failover.send()
    failover.take_over()
    failover.log.store.expire(failover.log.key, 100)

    page = failover.log.read("all", witness=lost)

    assert page.ids == [each.rpartition("-")[0] for each in failover.kept]
    assert page.generated > page.newest[0]
    assert 90_000 < page.ttl <= 100_000


def test_the_model_of_the_core_s_tests_does_the_same():
    redis = RedisModel()
    for _ in range(3):
        redis.send()
    lost = redis.log[-1].position
    redis.roll_back(1)
    request = HistoryRequest.whole("s", limit=10)
    request.witness = lost

    page = redis.read(request)

    assert page.generated is not None
    assert page.generated > lost[:2]
    redis.witness = None
    redis.send()
    assert redis.log[-1].position.epoch > lost.epoch
    assert Position.parse(str(redis.log[-1].position)) == redis.log[-1].position
