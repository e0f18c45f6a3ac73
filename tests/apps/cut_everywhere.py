"""A signal's handler that raises, at each point where the interpreter would call it, one by one.

`python -m tests.apps.cut_everywhere KIND URL PREFIX` prints what came of it as JSON. At random
moments hardly one of thousands comes between a lock and what gives it back; here all are tried.
"""

from __future__ import annotations

import faulthandler
import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from streamy_redis import StreamConfig, StreamManager

ROOM = "room"
# Every so many points: there are thousands where connections are made and threads started.
STRIDES = {"subscribe": 3, "live": 5, "writer": 15, "info": 10, "close": 15, "first": 60}
# Until what hangs is shown, and the process ends.
PATIENCE = 15


class Cut(Exception):
    """As a soft time limit is."""


class Scissors:
    """Raises a signal at the nth point of what is run: behind a call, or at the start of one."""

    def __init__(self) -> None:
        self._left = 0
        signal.signal(signal.SIGUSR1, self._cut)

    def _cut(self, number: int, frame: object) -> None:
        raise Cut

    def _count(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_return"):
            self._left -= 1
            if self._left == 0:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGUSR1)

    def cut(self, act: Callable[[], None], point: int) -> bool:
        """Whether there was such a point."""
        self._left = point
        sys.setprofile(self._count)
        try:
            act()
        except Cut:
            return True
        finally:
            sys.setprofile(None)
        return self._left <= 0


def use(streams: StreamManager) -> None:
    """All that a manager does, by what was sent and came."""
    with streams.subscribe("check") as events:
        sent = streams.send_event("check", "x")
        assert next(events).id == sent
    with streams.writer(f"check {time.monotonic_ns()}", 0.001) as text:
        text.write("x")


def act_on(streams: StreamManager, kind: str) -> Callable[[], None]:
    def subscribe() -> None:
        with streams.subscribe(ROOM, replay=2) as events:
            next(events)

    def live() -> None:
        with streams.subscribe(ROOM) as events:
            streams.send_event(ROOM, "live")
            next(events)

    def write() -> None:
        with streams.writer(f"text {time.monotonic_ns()}", 0.001) as text:
            text.write("a")
            text.write("b")

    return {
        "subscribe": subscribe,
        "live": live,
        "writer": write,
        "info": lambda: print(streams.info(ROOM).length, file=sys.stderr),
        "close": streams.close,
        "first": subscribe,
    }[kind]


def cut_everywhere(kind: str, new: Callable[[], StreamManager]) -> int:
    scissors = Scissors()
    cuts = 0
    streams = new()
    streams.send_events(ROOM, ["a", "b"])
    while True:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        if kind == "first":
            streams.close()
            streams = new()
        else:
            use(streams)
        if not scissors.cut(act_on(streams, kind), 1 + cuts * STRIDES[kind]):
            break
        cuts += 1
        use(streams)
    settle(streams)
    return cuts


def settle(streams: StreamManager) -> None:
    """Waits until nothing is left of what was interrupted."""
    process = streams._process
    use(streams)
    end = time.monotonic() + 5
    while process.listener.has_subscribers or len(process._senders._free) < 3:
        assert time.monotonic() < end, "somebody is left, or a connection is lost"
        time.sleep(0.01)
    streams.close()
    while threading.active_count() > 1:
        assert time.monotonic() < end, threading.enumerate()
        time.sleep(0.01)
    faulthandler.cancel_dump_traceback_later()


def main(kind: str, url: str, prefix: str) -> None:
    config = StreamConfig(prefix=prefix)
    print(json.dumps({"cuts": cut_everywhere(kind, lambda: StreamManager(url, config=config))}))


if __name__ == "__main__":
    main(*sys.argv[1:])
