"""The outbox: what one drain of the hub gives to writers, and what each of them came to.

Every call of a writer is guarded: whatever it raises costs its own response, and none of the
others. What is under way is kept here rather than in a loop's variables, so that an exception from
outside (a signal's, a killed greenlet's) leaves the rest for the next drain.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from .subscriber import Subscriber

__all__ = ["Delivery", "Failure", "Outbox"]

# The same bytes for many subscribers, all of which rest.
Delivery = tuple[bytes, list[Subscriber]]


class Failure(NamedTuple):
    """A writer that raised; or somebody else meanwhile, then the subscriber is None."""

    subscriber: Subscriber | None
    error: BaseException

    @property
    def stream_id(self) -> str | None:
        return self.subscriber.stream_id if self.subscriber is not None else None


class Outbox:
    """What is to be written. Whoever uses it holds the shell's right to write.

    Attributes:
        blocked: those whose writers have kept the rest of a delivery.
        failures: those whose writers raised.
    """

    def __init__(self) -> None:
        self._deliveries: deque[tuple[bytes, Iterator[Subscriber]]] = deque()
        self._wakes: deque[Iterator[Subscriber]] = deque()
        self.blocked: list[Subscriber] = []
        self.failures: list[Failure] = []

    @property
    def is_empty(self) -> bool:
        """Whether the last drain left nothing, neither to be written nor to be told."""
        return not (self._deliveries or self._wakes or self.blocked or self.failures)

    @property
    def has_news(self) -> bool:
        """Whether the hub has to be told what became of it; see Hub.receive_written."""
        return bool(self.blocked or self.failures)

    def add(self, deliveries: Iterable[Delivery], to_wake: Iterable[Subscriber]) -> None:
        """Takes what the hub has. Each subscriber is in one delivery: it may block on it."""
        assert not self._deliveries
        for data, subscribers in deliveries:
            self._deliveries.append((data, iter(subscribers)))
        self._wakes.append(iter(to_wake))

    def fail(self, subscriber: Subscriber | None, error: BaseException) -> None:
        """Its writer raised, here or elsewhere."""
        self.failures.append(Failure(subscriber, error))

    def write(self) -> None:
        """Calls every writer, the deliveries first: what they are woken for is newer."""
        while self._deliveries:
            self._deliver(*self._deliveries[0])
        while self._wakes:
            self._wake(self._wakes[0])

    # An iterator knows who has had his turn, also after an exception: it costs a call nothing.

    def _deliver(self, data: bytes, subscribers: Iterator[Subscriber]) -> None:
        subscriber = None
        try:
            for subscriber in subscribers:
                if not subscriber.writer.write(data):
                    self.blocked.append(subscriber)
            self._deliveries.popleft()
        except BaseException as exc:
            self.fail(subscriber, exc)

    def _wake(self, subscribers: Iterator[Subscriber]) -> None:
        subscriber = None
        try:
            for subscriber in subscribers:
                subscriber.writer.wake()
            self._wakes.popleft()
        except BaseException as exc:
            self.fail(subscriber, exc)
