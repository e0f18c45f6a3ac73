"""One contestant at work: its clients are opened, events are sent, and it is measured."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .contestants import Contestant
from .figures import Figures
from .load import Ask, Progress, Received
from .process import Process, moments
from .sender import Plan, Sent

if TYPE_CHECKING:
    from .stage import Stage

__all__ = ["Serving", "ServingError"]

# Seconds within which some more clients have to open, and all have to get a probe.
_OPEN_TIMEOUT, _PROBE_TIMEOUT = 5.0, 20.0
# Seconds within which a server comes to rest.
_REST_TIMEOUT = 20.0
# Seconds that a server may be behind when the last event was sent.
_LATEST = 40.0
# Clients that look at every event.
_SAMPLES = 100
# A server is at rest when it uses less than this part of its core for so many seconds.
_REST_SHARE, _REST_INTERVAL = 0.03, 0.25


class ServingError(Exception):
    """Raised when clients could not be opened, or events did not arrive."""


class Serving:
    """A running server of one contestant.

    Attributes:
        worker: the process that serves.
    """

    def __init__(self, stage: Stage, contestant: Contestant, port: int, worker: Process) -> None:
        self._stage = stage
        self._contestant = contestant
        self._port = port
        self.worker = worker

    def open(self, streams: Sequence[str], *, last_event_id: str | None = None) -> None:
        """Opens a response for each name, and waits until the server has asked or answered all.

        Raises:
            ServingError
        """
        target = self._progress().asked + len(streams)
        self.begin_to_open(streams, last_event_id=last_event_id)
        opened = -1
        while opened != target:
            before = opened
            for _ in moments(_OPEN_TIMEOUT):
                progress = self._progress()
                if progress.refused or progress.closed:
                    raise ServingError(f"{progress.refused} refused, {progress.closed} closed")
                opened = progress.asked if self._contestant.is_silent else progress.opened
                if opened > before:
                    break
            else:
                raise ServingError(f"only {opened} of {target} clients opened")

    def begin_to_open(self, streams: Sequence[str], *, last_event_id: str | None = None) -> None:
        """The same without waiting."""
        ask = Ask(
            self._port,
            self._contestant.path,
            last_event_id=last_event_id,
            is_silent=self._contestant.is_silent,
        )
        self._stage.load.call("open", ask, streams)

    def close_clients(self) -> None:
        self._stage.load.call("close")

    def rest(self) -> float:
        """Waits until the server is at rest; the CPU seconds that it has used by then."""
        cpu = self.worker.cpu_seconds()
        for _ in moments(_REST_TIMEOUT, 0.0):
            time.sleep(_REST_INTERVAL)
            before, cpu = cpu, self.worker.cpu_seconds()
            if cpu - before < _REST_SHARE * _REST_INTERVAL:
                break
        return cpu

    def probe(self, streams: Sequence[str]) -> None:
        """Sends events that don't count until every client has got one.

        Raises:
            ServingError: some never did.
        """
        clients = self._progress().asked
        for _ in moments(_PROBE_TIMEOUT, 0.0):
            self._stage.sender.call("probe", streams)
            for _ in moments(2.0):
                progress = self._progress()
                if progress.probed == clients:
                    self.rest()
                    return
        raise ServingError(f"{clients - progress.probed} of {clients} clients get nothing")

    def run(self, plan: Plan, clients: int) -> Figures:
        """Sends as planned, waits until all has arrived, and measures.

        Raises:
            ServingError: something never arrived.
        """
        load, sender = self._stage.load, self._stage.sender
        expected = plan.each * clients
        load.call("begin", _SAMPLES)
        redis_cpu, begun_at = self._stage.redis_process.cpu_seconds(), time.monotonic()
        cpu = self.worker.cpu_seconds()
        sender.start("run", plan)
        peak = self.worker.pss()
        for _ in moments(2 * plan.seconds + _LATEST, 0.05):
            if sender.is_done() and self._progress().events >= expected:
                break
        cpu = self.worker.cpu_seconds() - cpu
        seconds = time.monotonic() - begun_at
        redis_cpu = self._stage.redis_process.cpu_seconds() - redis_cpu
        sent: Sent = sender.result(1)
        received: Received = load.call("end", plan.each)
        if received.incomplete:
            raise ServingError(
                f"{expected - received.events} of {expected} deliveries are missing; "
                f"{received.incomplete} clients lack some"
            )
        return {
            "deliveries_per_cpu": received.events / cpu,
            "p50": received.latencies[0],
            "p99": received.latencies[1],
            "late": max(0.0, received.last_at - sent.last_at),
            "events_per_write": received.events / max(1, received.writes),
            "writes_per_batch": received.writes / (clients * plan.each / plan.batch),
            "server_share": cpu / seconds,
            "redis_share": redis_cpu / seconds,
            "load_share": received.cpu / seconds,
            "sender_share": sent.cpu / seconds,
            "pss_peak": float(max(peak, self.worker.pss())),
        }

    def collect(self, clients: int, each: int) -> Received:
        """Waits until clients that resume have received all they missed.

        Raises:
            ServingError: they never did.
        """
        for _ in moments(_LATEST, 0.005):
            if self._progress().events >= clients * each:
                break
        received: Received = self._stage.load.call("end", each)
        if received.incomplete or received.events != clients * each:
            raise ServingError(f"{received.incomplete} clients lack events")
        return received

    def redis_connections(self) -> Figures:
        """All connections of the server's to Redis, and those that are subscribed."""
        listed = self._stage.redis.client_list()
        ours = self.worker.local_ports()
        theirs = [entry for entry in listed if int(entry["addr"].rpartition(":")[2]) in ours]
        return {
            "redis_connections": float(len(theirs)),
            "pubsub_connections": float(sum(entry["sub"] != "0" for entry in theirs)),
        }

    def _progress(self) -> Progress:
        progress: Progress = self._stage.load.call("progress")
        return progress
