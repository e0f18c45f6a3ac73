"""Senders into which exceptions are thrown at random moments: time limits of jobs, cancellation.

`python -m tests.apps.cut_senders KIND URL PREFIX` prints what came of it as JSON.
"""

from __future__ import annotations

import sys

if sys.argv[1] == "gevent":
    from gevent import monkey

    monkey.patch_all()

import asyncio
import ctypes
import itertools
import json
import random
import signal
import threading
import time
from collections.abc import Callable

from streamy_redis import AsyncStreamManager, StreamConfig, StreamManager

CUTS = 1500
SENDERS = 6
ROOM = "room"
# Seconds until a cut: about as long as a send takes, and a reconnect after the last one.
LATEST = 0.001


class Cut(TimeoutError):
    """As a soft time limit is: an Exception that nobody but the job may swallow.

    Some limits are of this kind, which redis-py takes for a timeout of its own.
    """


class Record:
    """What senders were told."""

    def __init__(self) -> None:
        self.returned: dict[str, str] = {}
        self.errors: list[str] = []
        self.cuts = 0
        self.is_over = False

    def told(self) -> dict[str, object]:
        return {"returned": self.returned, "errors": self.errors, "cuts": self.cuts}


def send_until_over(streams: StreamManager, record: Record, name: str) -> None:
    """Sends numbered events, whatever is thrown at it."""
    numbers = itertools.count()
    while not record.is_over:
        try:
            while not record.is_over:
                data = f"{name} {next(numbers)}"
                try:
                    # One call of C takes the id, so that none is lost on its way to the record.
                    record.returned[streams.send_event(ROOM, data)] = data
                except Cut:
                    record.cuts += 1
                except Exception as error:
                    record.errors.append(f"{type(error).__name__}: {error}")
        except Cut:
            record.cuts += 1


def in_threads(count: int, act: Callable[[int], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=act, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    return threads


def cut_threads(streams: StreamManager, record: Record) -> None:
    """PyThreadState_SetAsyncExc, as Dramatiq's time limit."""
    threads = in_threads(SENDERS, lambda n: send_until_over(streams, record, f"thread {n}"))
    while record.cuts < CUTS:
        time.sleep(random.uniform(0, LATEST / SENDERS))
        victim = ctypes.c_ulong(random.choice(threads).ident or 0)
        ctypes.pythonapi.PyThreadState_SetAsyncExc(victim, ctypes.py_object(Cut))
    record.is_over = True
    join(threads)


def cut_by_signals(streams: StreamManager, record: Record) -> None:
    """A handler that raises in the main thread, as Celery's soft time limit; others send on."""

    def cut(number: int, frame: object) -> None:
        raise Cut

    signal.signal(signal.SIGALRM, cut)
    threads = in_threads(2, lambda n: send_until_over(streams, record, f"thread {n}"))
    while record.cuts < CUTS:
        data = f"main {time.monotonic_ns()}"
        try:
            signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, LATEST))
            record.returned[streams.send_event(ROOM, data)] = data
            signal.setitimer(signal.ITIMER_REAL, 0)
        except Cut:
            record.cuts += 1
        except Exception as error:
            record.errors.append(f"{type(error).__name__}: {error}")
    record.is_over = True
    join(threads)


def send_from_handlers(streams: StreamManager, record: Record) -> None:
    """A handler that sends itself, whatever the main thread is doing: mostly sending."""
    handling: list[int] = []

    def send(number: int, frame: object) -> None:
        if handling:
            return
        handling.append(number)
        record.cuts += 1
        data = f"handler {record.cuts}"
        record.returned[streams.send_event(ROOM, data)] = data
        handling.clear()

    signal.signal(signal.SIGALRM, send)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.0013)
    while record.cuts < CUTS:
        data = f"main {time.monotonic_ns()}"
        record.returned[streams.send_event(ROOM, data)] = data
    signal.setitimer(signal.ITIMER_REAL, 0)


def cut_greenlets(streams: StreamManager, record: Record) -> None:
    import gevent

    def send(number: int) -> None:
        for count in itertools.count():
            if record.is_over:
                return
            data = f"greenlet {number} {count}"
            try:
                with gevent.Timeout(random.uniform(0, LATEST * 3)):
                    record.returned[streams.send_event(ROOM, data)] = data
            except gevent.Timeout:
                record.cuts += 1
                record.is_over = record.cuts >= CUTS
            except Exception as error:
                record.errors.append(f"{type(error).__name__}: {error}")

    join(in_threads(SENDERS, send))


async def cut_tasks(url: str, config: StreamConfig, record: Record) -> None:
    async def send(number: int) -> None:
        for count in itertools.count():
            if record.is_over:
                return
            data = f"task {number} {count}"
            sending = asyncio.create_task(streams.send_event(ROOM, data))
            timer = asyncio.get_running_loop().call_later(
                random.uniform(0, LATEST * 3), cut, sending
            )
            try:
                record.returned[await sending] = data
            except asyncio.CancelledError:
                record.cuts += 1
                record.is_over = record.cuts >= CUTS
            except Exception as error:
                record.errors.append(f"{type(error).__name__}: {error}")
            timer.cancel()

    def cut(sending: asyncio.Task[str]) -> None:
        sending.cancel()

    async with AsyncStreamManager(url, config=config) as streams:
        await asyncio.gather(*(send(number) for number in range(SENDERS)))


def join(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive(), "a sender hangs"


def send_without_cuts(streams: StreamManager, record: Record) -> None:
    """All of them once more, in the same manager."""
    calm = Record()
    start = time.monotonic()
    threads = in_threads(SENDERS, lambda n: send_until_over(streams, calm, f"calm {n}"))
    while len(calm.returned) < 300 and not calm.errors and time.monotonic() < start + 5:
        time.sleep(0.01)
    calm.is_over = True
    join(threads)
    record.returned |= calm.returned
    record.errors += calm.errors


def main(kind: str, url: str, prefix: str) -> None:
    random.seed(11)
    config = StreamConfig(prefix=prefix, history_length=1_000_000)
    record = Record()
    if kind == "asyncio":
        asyncio.run(cut_tasks(url, config, record))
    with StreamManager(url, config=config) as streams:
        streams.send_event(ROOM, "first")
        if kind == "threads":
            cut_threads(streams, record)
        elif kind == "signals":
            cut_by_signals(streams, record)
        elif kind == "handlers":
            send_from_handlers(streams, record)
        elif kind == "gevent":
            cut_greenlets(streams, record)
        send_without_cuts(streams, record)
        free = len(streams._process._senders._free)
    print(json.dumps(record.told() | {"free": free}))


if __name__ == "__main__":
    main(*sys.argv[1:])
