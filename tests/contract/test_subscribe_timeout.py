"""subscribe(timeout=): who waits in vain is told, and may go on."""

from __future__ import annotations

import time
from typing import Any

import pytest

from .conftest import Shell


def next_of(events: Any) -> Any:
    return next(iter(events))


def test_without_an_event_it_raises_in_time_and_goes_on_afterwards(streams: Any):
    with streams.subscribe("room", timeout=0.3) as events:
        for number in range(3):
            started = time.monotonic()
            with pytest.raises(TimeoutError, match=r"'room' within 0\.3 s"):
                next_of(events)
            assert 0.25 < time.monotonic() - started < 5

            sent = streams.send_events("room", [number, "next"])

            # Nothing was lost, nothing comes twice.
            received = [next_of(events), next_of(events)]
            assert [event.id for event in received] == sent
            assert received[0].json() == number
        streams.end_stream("room")
        assert [event.kind for event in events] == ["end"]


def test_events_that_come_in_time_are_all_it_sees(shell: Shell, streams: Any):
    reader = shell.reader(streams, "room", timeout=5)

    streams.send_events("room", range(20))
    streams.end_stream("room")

    assert [event.kind for event in reader.wait_ended()] == [*["event"] * 20, "end"]


def test_what_the_history_holds_counts_as_events(streams: Any):
    streams.send_events("room", ["a", "b"])

    with streams.subscribe("room", replay="all", timeout=0.3) as events:
        assert [next_of(events).data, next_of(events).data] == ["a", "b"]
        with pytest.raises(TimeoutError):
            next_of(events)


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), "1", True])
@pytest.mark.refusal
def test_a_timeout_that_is_no_duration_is_refused(streams: Any, timeout: Any):
    with pytest.raises((ValueError, TypeError), match="timeout"):
        streams.subscribe("room", timeout=timeout)
