"""One writer that raises, blocks or is interrupted takes nothing from the others."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from streamy_redis.core.outbox import Outbox
from streamy_redis.core.subscriber import CloseReason, State, Subscriber
from tests.core.test_hub import Client, Process


class Interruption(BaseException):
    """As a signal's handler, a killed greenlet or a timeout raises it."""


ERRORS = [OSError, RuntimeError, KeyboardInterrupt, GeneratorExit, Interruption]


class Fragile(Client):
    """Raises at the calls that it is told to, once each."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Callable[[], BaseException] | None = None
        self.woken = 0

    def _maybe_raise(self) -> None:
        error, self.error = self.error, None
        if error is not None:
            raise error()

    def write(self, data: bytes) -> bool:
        self._maybe_raise()
        return super().write(data)

    def wake(self) -> None:
        self._maybe_raise()
        self.woken += 1


@pytest.fixture
def process() -> Process:
    return Process()


def resting(process: Process, count: int) -> list[Subscriber]:
    found = [process.rest() for _ in range(count)]
    for subscriber in found:
        subscriber.writer = Fragile()
    # The pages that they began with have been seen to.
    process.hub.subscribers_to_flush()
    return found


def client(subscriber: Subscriber) -> Fragile:
    assert isinstance(subscriber.writer, Fragile)
    return subscriber.writer


def drain(process: Process) -> list[BaseException]:
    """All that a shell does with it; the errors."""
    errors = []
    while process.hub.has_writes:
        process.hub.outbox_to_write().write()
        errors += [failure.error for failure in process.hub.receive_written(process.now)]
    return errors


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("which", [0, 2, 4])
def test_one_write_that_raises_takes_nothing_from_others(
    process: Process, which: int, error: type[BaseException]
):
    subscribers = resting(process, 5)
    failing = subscribers[which]
    client(failing).error = error

    process.send()
    (raised,) = drain(process)

    assert isinstance(raised, error)
    assert [len(client(s).written) for s in subscribers if s is not failing] == [1] * 4
    assert (failing.closed, failing.is_aborted) == (CloseReason.FAILED, True)
    assert client(failing).woken == 1, "so that it can be cut off"


@pytest.mark.parametrize("error", ERRORS)
def test_one_wake_that_raises_takes_nothing_from_others(
    process: Process, error: type[BaseException]
):
    subscribers = resting(process, 5)
    client(subscribers[2]).error = error
    for subscriber in subscribers:
        process.hub.wake(subscriber)

    drain(process)

    assert [client(s).woken for s in subscribers] == [1] * 5
    assert [s.closed for s in subscribers] == [None, None, CloseReason.FAILED, None, None]


def test_every_write_that_raises_is_told(process: Process):
    subscribers = resting(process, 3)
    for subscriber in subscribers:
        client(subscriber).error = RuntimeError

    process.send()

    assert len(drain(process)) == 3
    assert [s.closed for s in subscribers] == [CloseReason.FAILED] * 3


def test_one_that_can_t_be_cut_off_either_is_given_up(process: Process):
    (failing,) = resting(process, 1)
    client(failing).error = RuntimeError
    process.send()
    process.hub.outbox_to_write().write()
    process.hub.receive_written(process.now)

    client(failing).error = RuntimeError
    assert len(drain(process)) == 1

    assert failing.state is State.CLOSED
    assert not process.hub.has_writes
    assert len(process.hub) == 0


def test_one_whose_last_write_raises_is_cut_off(process: Process):
    (failing,) = resting(process, 1)
    client(failing).error = RuntimeError

    process.hub.remove(failing, CloseReason.SHUTDOWN, process.now)
    drain(process)

    assert (failing.closed, failing.is_aborted) == (CloseReason.SHUTDOWN, True)


def test_who_has_left_is_not_cut_off(process: Process):
    (gone,) = resting(process, 1)
    process.hub.remove(gone, CloseReason.DISCONNECT, process.now)
    drain(process)

    process.hub.outbox.fail(gone, RuntimeError())
    drain(process)

    assert not gone.is_aborted, "its connection may be another request's by now"


def test_a_write_that_blocks_before_another_fails_is_told(process: Process):
    blocked, failing = resting(process, 2)
    client(blocked).is_blocked = True
    client(failing).error = Interruption

    process.send()
    drain(process)

    assert not blocked.is_resting
    assert (blocked.closed, failing.closed) == (None, CloseReason.FAILED)


def test_what_an_interrupted_drain_leaves_is_written_by_the_next_one(process: Process):
    subscribers = resting(process, 4)
    process.send()
    outbox = process.hub.outbox_to_write()

    # Nobody writes; meanwhile more is sent, and one gets a backlog of its own.
    process.send()
    process.hub.block([subscribers[3]], process.now)
    assert process.hub.has_writes
    drain(process)

    assert outbox.is_empty
    written = [b"".join(client(s).written) for s in subscribers[:3]]
    assert [text.count(b"data:") for text in written] == [2] * 3
    assert client(subscribers[3]).written[0] in written[0]
    assert client(subscribers[3]).woken == 1


def test_who_blocks_on_what_was_left_gets_the_rest_by_itself(process: Process):
    blocking, other = resting(process, 2)
    process.send()
    process.hub.outbox_to_write()

    # Nobody writes; and when somebody does, one has no room.
    process.send()
    client(blocking).is_blocked = True
    drain(process)

    assert [len(client(s).written) for s in (blocking, other)] == [1, 2]
    assert process.take(blocking) == client(other).written[1:]


def test_who_has_blocked_untold_gets_the_rest_by_itself(process: Process):
    blocking, other = resting(process, 2)
    client(blocking).is_blocked = True
    process.send()
    process.hub.outbox_to_write().write()

    # Nobody tells the hub.
    process.send()
    drain(process)

    assert [len(client(s).written) for s in (blocking, other)] == [1, 2]
    assert process.take(blocking) == client(other).written[1:]


def test_who_has_blocked_untold_and_has_room_again_is_looked_at(process: Process):
    (blocking,) = resting(process, 1)
    client(blocking).is_blocked = True
    process.send()
    process.hub.outbox_to_write().write()

    # Nobody tells the hub, until the writer has found room and nothing more to take.
    assert not process.take(blocking)
    drain(process)

    assert client(blocking).woken == 1, "or it would seem to write, and time out"
    assert not process.take(blocking)
    assert blocking.is_resting


def test_one_that_can_t_be_told_as_blocked_is_cut_off(
    process: Process, monkeypatch: pytest.MonkeyPatch
):
    subscribers = resting(process, 3)
    for subscriber in subscribers:
        client(subscriber).is_blocked = True
    block, failing = process.hub.block, subscribers[1]

    def fragile(each: list[Subscriber], now: float) -> None:
        if failing in each:
            raise Interruption
        block(each, now)

    monkeypatch.setattr(process.hub, "block", fragile)
    process.send()
    drain(process)

    assert [s.closed for s in subscribers] == [None, CloseReason.FAILED, None]


def test_an_outbox_is_empty_when_all_is_written_and_told():
    outbox = Outbox()
    outbox.add([], [])
    outbox.write()

    assert outbox.is_empty
