"""Prometheus: the figures of managers as metrics.

gunicorn's multiprocess mode knows no collectors: each process has metric objects, whose values lie
in files. So they are not asked for at a scrape; the listeners' tickers keep them up to date.
"""

from __future__ import annotations

import atexit
import functools
import operator
import os
import threading
from typing import TYPE_CHECKING

from .core.stats import StreamStats
from .tally import Tally

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram
except ModuleNotFoundError as exc:
    message = "streamy_redis.prometheus needs an extra: pip install 'streamy-redis[prometheus]'"
    raise ImportError(message) from exc

if TYPE_CHECKING:
    from .asyncio.manager import AsyncStreamManager
    from .sync.manager import StreamManager

__all__ = ["observe"]

# Seconds, for the histogram: from a Redis next door to a client that is about to be let go.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def observe(
    manager: StreamManager | AsyncStreamManager, registry: CollectorRegistry = REGISTRY
) -> None:
    """Keeps metrics of a manager's streams, named ``streamy_redis_*``.

    They are up to date within a quarter of a second. Several managers on one registry add up;
    repeating it for one changes nothing. Works in multiprocess mode (``PROMETHEUS_MULTIPROC_DIR``),
    where the gauges of processes that are gone drop out once ``mark_process_dead`` is called.
    Connects and starts nothing.

    Args:
        registry: of prometheus_client, that the metrics are registered with.

    Raises:
        TypeError: manager is none.
        ValueError: another's metrics in the registry have these names.
    """
    tally = getattr(manager, "_tally", None)
    if not isinstance(tally, Tally):
        kind = type(manager).__name__
        raise TypeError(f"manager must be a StreamManager or an AsyncStreamManager, not {kind}")
    with _lock:
        metrics = _by_registry.get(registry)
        if metrics is None:
            metrics = _by_registry[registry] = _Metrics(registry)
            # A worker that ends knows nothing of managers to be closed.
            atexit.register(metrics.update)
        metrics.add(tally)


_lock = threading.Lock()
_by_registry: dict[CollectorRegistry, _Metrics] = {}


class _Metrics:
    """The metrics in one registry, and the managers whose figures they are."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tallies: list[Tally] = []
        # By process id: a fork counts from zero.
        self._shown: dict[int, _Shown] = {}
        self._subscribers = Gauge(
            "streamy_redis_subscribers",
            "Open responses.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._streams = Gauge(
            "streamy_redis_streams",
            "Streams listened to; one that several processes listen to counts for each.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._backlog = Gauge(
            "streamy_redis_backlog_high_water_events",
            "The most events that ever waited for one subscriber.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._frames = Counter(
            "streamy_redis_frames_written", "Frames written to subscribers.", registry=registry
        )
        self._resets = Counter(
            "streamy_redis_resets", "Resets that subscribers got.", registry=registry
        )
        self._reconnects = Counter(
            "streamy_redis_reconnects", "Pub/Sub connections made anew.", registry=registry
        )
        self._refused = Counter(
            "streamy_redis_responses_refused",
            "Requests answered 503, since too many responses were open.",
            registry=registry,
        )
        self._short = Counter(
            "streamy_redis_responses_short_of_descriptors",
            "Requests answered 503, since the process has too few descriptors left.",
            registry=registry,
        )
        self._ended = Counter(
            "streamy_redis_responses_ended",
            "Responses that have ended, by reason.",
            ["reason"],
            registry=registry,
        )
        self._delays = Histogram(
            "streamy_redis_send_to_write_seconds",
            "From when Redis stored an event to when this process has written it to all "
            "subscribers without a backlog; of one event in sixteen.",
            registry=registry,
            buckets=_BUCKETS,
        )
        for reason in StreamStats().ended:
            self._ended.labels(reason)

    def add(self, tally: Tally) -> None:
        if tally not in self._tallies:
            self._tallies.append(tally)
            tally.follow(self)
            self.update()

    def written(self, delay: float) -> None:
        self._delays.observe(delay)

    def update(self) -> None:
        shown = self._shown.setdefault(os.getpid(), _Shown())
        with shown.lock:
            stats = functools.reduce(operator.add, [tally.stats() for tally in self._tallies])
            self._set(stats, shown.stats)
            shown.stats = stats

    def _set(self, stats: StreamStats, shown: StreamStats) -> None:
        self._subscribers.set(stats.subscribers)
        self._streams.set(stats.streams)
        self._backlog.set(stats.backlog_high_water)
        self._frames.inc(stats.frames_written - shown.frames_written)
        self._resets.inc(stats.resets - shown.resets)
        self._reconnects.inc(stats.reconnects - shown.reconnects)
        self._refused.inc(stats.refused - shown.refused)
        self._short.inc(stats.short_of_descriptors - shown.short_of_descriptors)
        for reason, count in stats.ended.items():
            self._ended.labels(reason).inc(count - shown.ended[reason])


class _Shown:
    """What one process has added to the metrics so far."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.stats = StreamStats()
