"""Programs that send, for tests to start, fork, kill: `python -m tests.faults.many_senders …`."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
import time

from streamy_redis import StreamConfig, StreamEnded, StreamManager

from .naive import FireAndForget, NaiveAsyncSender, SharedConnection
from .senders import HISTORY_LENGTH


def config_of(prefix: str) -> StreamConfig:
    """That of the other senders of a scene: whoever keeps less trims what they have sent."""
    return StreamConfig(prefix=prefix, history_length=HISTORY_LENGTH)


def until_the_end(url: str, prefix: str, room: str, name: str) -> None:
    """Sends until the stream has ended; prints each id when its send has returned."""
    streams = StreamManager(url, config=config_of(prefix))
    number = 0
    while True:
        data = f"{name} {number}"
        try:
            print(streams.send_event(room, data), data, flush=True)
        except StreamEnded:
            return
        number += 1


def end_it(url: str, prefix: str, room: str) -> None:
    """Ends the stream twice; prints what each call said."""
    with StreamManager(url, config=config_of(prefix)) as streams:
        streams.info(room)  # connected, so that all of them are equally quick
        print("ready", flush=True)
        sys.stdin.readline()
        for _ in range(2):
            print(streams.end_stream(room, "bye"), flush=True)


def and_die(url: str, prefix: str, room: str, how: str) -> None:
    """Sends once, prints the id, and is gone: no close, no goodbye."""
    streams = StreamManager(url, config=config_of(prefix))
    event_id = streams.send_event(room, how)
    os.write(1, f"{event_id} {how}\n".encode())
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(0)


def and_die_naively(url: str, prefix: str, room: str) -> None:
    """The same with a thread that sends later: what was accepted dies with it."""
    sender = FireAndForget(url, prefix, room)
    for n in range(3):
        sender.send(f"accepted {n}")
        os.write(1, f"accepted {n}\n".encode())
    os._exit(0)


def while_forking(url: str, prefix: str, room: str, seed: str) -> None:
    """Forks at random moments while threads of the parent send, as a prefork server does.

    Each child sends, and receives what it sent itself; all print what was returned.
    """
    rng = random.Random(seed)
    streams = StreamManager(url, config=config_of(prefix))
    stopping = threading.Event()

    def send(name: str) -> None:
        number = 0
        while not stopping.is_set():
            data = f"{name} {number}"
            os.write(1, f"{streams.send_event(room, data)} {data}\n".encode())
            number += 1

    threads = [threading.Thread(target=send, args=(f"parent {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    children = []
    for n in range(8):
        time.sleep(rng.uniform(0.01, 0.06))
        pid = os.fork()
        if pid == 0:
            _child(streams, room, n)
        children.append(pid)
    statuses = [os.waitpid(pid, 0)[1] for pid in children]
    stopping.set()
    for thread in threads:
        thread.join()
    sys.exit(any(statuses))


def _child(streams: StreamManager, room: str, n: int) -> None:
    signal.alarm(20)  # a hang is a failure
    with streams.subscribe(f"{room} child {n}") as own:
        for number in range(5):
            data = f"child {n} {number}"
            os.write(1, f"{streams.send_event(room, data)} {data}\n".encode())
        sent = streams.send_events(f"{room} child {n}", ["a", "b"])
        received = [event.id for _, event in zip(range(2), own, strict=False)]
    os._exit(0 if received == sent else 1)


def while_forking_naively(url: str, prefix: str, room: str) -> None:
    """Children that send over the connection that they inherited, all at once."""
    connection = SharedConnection(url, prefix)
    children = []
    for n in range(4):
        pid = os.fork()
        if pid == 0:
            signal.alarm(20)
            for event_id, data in connection.send_some(room, f"child {n}"):
                os.write(1, f"{event_id} {data}\n".encode())
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)


def asyncio_run_naively(url: str, prefix: str, room: str) -> None:
    """Loop after loop with one client of redis-py's."""
    sender = NaiveAsyncSender(url, prefix, room)
    for n in range(10):
        asyncio.run(sender.send(f"loop {n}"))
    sender.assert_caught(RuntimeError)


if __name__ == "__main__":
    programs = (
        *(until_the_end, end_it, and_die, and_die_naively),
        *(while_forking, while_forking_naively, asyncio_run_naively),
    )
    {program.__name__: program for program in programs}[sys.argv[1]](*sys.argv[2:])
