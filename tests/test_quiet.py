"""How timed tests share the machine."""

from __future__ import annotations

import threading
from pathlib import Path

from .deadline import Deadline
from .quiet import the_machine


class Guests:
    """Each in a thread of its own, which stands for a process; and who has begun."""

    def __init__(self, folder: Path) -> None:
        self.began: list[str] = []
        self._folder = folder
        self._ends: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    def come(self, name: str, *, alone: bool = False) -> None:
        self._ends[name] = threading.Event()
        self._threads.append(threading.Thread(target=self._run, args=(name, alone)))
        self._threads[-1].start()

    def _run(self, name: str, alone: bool) -> None:
        with the_machine(alone=alone, folder=self._folder):
            self.began.append(name)
            self._ends[name].wait(10)

    def end(self, name: str) -> None:
        self._ends[name].set()

    def join(self) -> None:
        for name in self._ends:
            self.end(name)
        for thread in self._threads:
            thread.join(10)


def test_one_that_has_it_alone_comes_before_those_who_come_later(tmp_path: Path):
    guests = Guests(tmp_path)
    for name in ("first", "second"):
        guests.come(name)
        Deadline(5).until(lambda name=name: name in guests.began)
    guests.come("heavy", alone=True)
    Deadline(0.2).stays(lambda: "heavy" not in guests.began)
    guests.come("late")
    Deadline(0.2).stays(lambda: "late" not in guests.began)

    guests.end("first")
    guests.end("second")
    Deadline(5).until(lambda: "heavy" in guests.began)
    Deadline(0.2).stays(lambda: "late" not in guests.began)
    guests.end("heavy")
    Deadline(5).until(lambda: "late" in guests.began)

    guests.join()
