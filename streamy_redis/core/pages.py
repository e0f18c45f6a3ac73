"""Pages: which reads of the logs go to Redis next, and who is answered by each.

READY       readers wait for a page of a stream, and none of it is on its way
READING     one is; who asks meanwhile waits for the next, since a page that was asked for before
            somebody subscribed may lack what was sent before that
HELD        the last read failed; nothing is asked until a pause is over
IDLE        nobody waits; what is known of the stream is kept for a moment

A stream is read like a shelf from one end: a page begins at the lowest cursor of all who wait, and
answers each whose cursor lies in it, with what is behind that cursor. The next page begins at the
lowest of those beyond it, and only when nobody is there at the beginning again: so whoever comes
meanwhile keeps nobody waiting for more than what is on the shelf, once, and a thousand readers with
a thousand cursors cost no more than that.

Nobody knows how large a page will be that Redis gives as it is, which costs it least. So the first
read of a stream is a look, which tells how large its events are, and if there are any.

A batch is what goes to Redis in one round trip: first what is small (position checks, newcomers,
and looks what a page would be like, or if one that was kept still holds), then full pages, as many
bytes as the window allows. The window follows Redis: it grows by a page while answers come quickly,
and is halved when they don't. So full pages of all processes together never make others wait for
long.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass

from ..config import (
    BATCH_PAGES_BYTES,
    BATCH_READS,
    KEPT_PAGE_EVENTS,
    PAGE_BYTES,
    RETRY_READ_INTERVAL,
    SLOW_READ,
)
from .history import HistoryKey, HistoryPage, HistoryRequest, Recipient

__all__ = ["PageLimits", "Pages"]

# Seconds for which a page is kept for others who come back to its part of the log, and how many
# pages are. As long is remembered how large the events of a stream are.
_KEPT = 1.0
_MOST_KEPT = 4
# How often a pause is doubled, at the most.
_MOST_DOUBLINGS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class PageLimits:
    """What bounds reads of logs.

    Attributes:
        page_bytes: what a page holds at the most, and is taken to hold until one was seen.
        keep_from: events from which on a page is kept for a moment: below it a page costs Redis as
            little as the look that would be taken instead.
        batch_requests: reads of one round trip.
        batch_bytes: full pages of one round trip at the most.
        slow_batch: seconds from which on the next batch is smaller.
        retry_interval: seconds, first and longest, until a read that failed is tried again.
    """

    page_bytes: int = PAGE_BYTES
    keep_from: int = KEPT_PAGE_EVENTS
    batch_requests: int = BATCH_READS
    batch_bytes: int = BATCH_PAGES_BYTES
    slow_batch: float = SLOW_READ
    retry_interval: tuple[float, float] = RETRY_READ_INTERVAL


class _Shelf:
    """What is known of one stream that is read."""

    __slots__ = (
        "entry_size",
        "failures",
        "idle_since",
        "is_held",
        "is_reading",
        "page_bytes",
        "read_up_to",
        "waiting",
    )

    def __init__(self) -> None:
        # Those that no page was asked for yet, and what each wants.
        self.waiting: dict[Recipient, HistoryRequest] = {}
        self.is_reading = False
        self.is_held = False
        # Reads in a row that gave nothing.
        self.failures = 0
        # What a page of it is taken to hold; None until one was seen.
        self.page_bytes: int | None = None
        # Bytes of an entry, on the average, as of the last read; None until there was one.
        self.entry_size: int | None = None
        self.idle_since = 0.0
        # Where the last page ended, if something is behind it.
        self.read_up_to = (0, 0)

    @property
    def next(self) -> HistoryRequest:
        """What the next page begins at. Somebody waits."""
        beyond = [each for each in self.waiting.values() if _place(each) >= self.read_up_to]
        return min(beyond or self.waiting.values(), key=_place)


class Pages:
    """The reads of a hub. Not thread-safe, and never waits: see Hub."""

    def __init__(self, limits: PageLimits) -> None:
        self._limits = limits
        # Reads that cost little, by what they ask.
        self._small: dict[object, HistoryRequest] = {}
        self._shelves: dict[str, _Shelf] = {}
        # The streams that are READY, in the order in which they became it: for a look, or a page.
        self._looks: dict[str, None] = {}
        self._fulls: dict[str, None] = {}
        # Those that are IDLE, longest first.
        self._idle: dict[str, None] = {}
        # Small reads and streams that are HELD, and until when.
        self._held: list[tuple[float, int, HistoryRequest | str]] = []
        # How often a small read failed in a row, by what it asks.
        self._failures: dict[object, int] = {}
        # Pages that were read lately, what they answered, and when; the oldest first.
        self._kept: dict[str, tuple[HistoryPage, HistoryKey, float]] = {}
        # What a page is taken to hold of a stream of which none was seen.
        self._typical = limits.page_bytes
        # Bytes of full pages that the next batch may take.
        self._window = limits.page_bytes
        # Whether the batch under way took all that the window allowed.
        self._is_window_full = False
        self._order = itertools.count()

    def ask(self, request: HistoryRequest, recipient: Recipient) -> None:
        """Somebody needs what a request would give, as of now or later."""
        if request.is_small:
            self._small.setdefault(request.key, request).recipients[recipient] = request
            return
        stream_id = request.key.stream_id
        shelf = self._shelves.get(stream_id)
        if shelf is None:
            shelf = self._shelves[stream_id] = _Shelf()
        shelf.waiting[recipient] = request
        self._queue(stream_id, shelf)

    @property
    def has_requests(self) -> bool:
        return bool(self._small or self._looks or self._fulls)

    def requests_to_send(self) -> list[HistoryRequest]:
        """The next batch. Each of it is to be answered or to fail, before the next is asked for."""
        most = self._limits.batch_requests
        # However much is small, a page goes with it.
        most_small = most - bool(self._fulls)
        batch = self._small_ones(most_small)
        batch += self._looks_to_send(most_small - len(batch))
        budget = self._window
        while self._fulls and len(batch) < most:
            stream_id = next(iter(self._fulls))
            size = self._size_of(self._shelves[stream_id])
            if size > budget and budget < self._window:
                break
            reads = self._begin_to_read(stream_id)
            batch += reads
            budget -= size * len(reads)
        self._is_window_full = budget <= 0 or bool(self._fulls)
        return batch

    def _size_of(self, shelf: _Shelf) -> int:
        return self._typical if shelf.page_bytes is None else shelf.page_bytes

    def _small_ones(self, most: int) -> list[HistoryRequest]:
        batch = []
        for key in list(itertools.islice(self._small, most)):
            request = self._small.pop(key)
            request.recipients = _those_still_there(request.recipients)
            if request.recipients:
                batch.append(request)
            else:
                self._failures.pop(key, None)
        return batch

    def _looks_to_send(self, most: int) -> list[HistoryRequest]:
        batch: list[HistoryRequest] = []
        for stream_id in list(itertools.islice(self._looks, most)):
            batch += self._begin_to_look(stream_id)
        return batch

    def _begin_to_look(self, stream_id: str) -> list[HistoryRequest]:
        """A look at the log, if it is not known already that who waits needs a page."""
        del self._looks[stream_id]
        shelf = self._shelves[stream_id]
        shelf.waiting = _those_still_there(shelf.waiting)
        if not shelf.waiting:
            self._idle[stream_id] = None
            return []
        if shelf.entry_size is not None and not self._is_kept(shelf.next):
            self._fulls[stream_id] = None
            return []
        return [self._begin(shelf, shelf.next.look())]

    def _is_kept(self, request: HistoryRequest) -> bool:
        kept = self._kept.get(request.key.stream_id)
        return kept is not None and kept[0].shows(request.key, read_for=kept[1])

    def _begin_to_read(self, stream_id: str) -> list[HistoryRequest]:
        """The page that a stream needs, if anybody still waits for it."""
        del self._fulls[stream_id]
        shelf = self._shelves[stream_id]
        shelf.waiting = _those_still_there(shelf.waiting)
        if not shelf.waiting:
            self._idle[stream_id] = None
            return []
        lowest = shelf.next
        return [self._begin(shelf, lowest.page(self._count(shelf, lowest.key.limit)))]

    def _count(self, shelf: _Shelf, most: int) -> int:
        """Entries that are read as they are; 0 where Redis has to look at them."""
        if not shelf.entry_size:
            return 0
        count = min(most, self._limits.page_bytes // shelf.entry_size)
        # Others than those that were looked at may be large: it may be that which failed.
        count >>= shelf.failures
        return count if count >= self._limits.keep_from else 0

    def _begin(self, shelf: _Shelf, request: HistoryRequest) -> HistoryRequest:
        shelf.is_reading = True
        request.recipients, shelf.waiting = shelf.waiting, {}
        return request

    def answered(
        self, request: HistoryRequest, page: HistoryPage, now: float
    ) -> list[tuple[Recipient, HistoryPage]]:
        """What Redis said to a request, for each that it is an answer for; others wait on."""
        key = request.key
        if request.is_small:
            self._failures.pop(key, None)
            return [(recipient, page) for recipient in request.recipients]
        shelf = self._shelves[key.stream_id]
        if request.is_look:
            if not page.is_complete:
                shelf.entry_size = page.entry_size
            source = self._shown_by_look(request, page)
        else:
            source = page, key
            self._note(shelf, request, page, now)
        shelf.is_reading = False
        shelf.failures = 0
        answers: list[tuple[Recipient, HistoryPage]] = []
        for recipient, wanted in request.recipients.items():
            shown = source and source[0].shown_to(wanted.key, read_for=source[1])
            if shown:
                answers.append((recipient, shown))
            else:
                shelf.waiting.setdefault(recipient, wanted)
        shelf.idle_since = now
        self._queue(key.stream_id, shelf)
        return answers

    def failed(self, request: HistoryRequest, now: float) -> None:
        """Redis didn't answer a request: it is asked again after a pause."""
        stream_id = request.key.stream_id
        if request.is_small:
            failures = self._failures[request.key] = self._failures.get(request.key, 0) + 1
            self._hold(request, failures, now)
            return
        shelf = self._shelves[stream_id]
        shelf.is_reading, shelf.is_held = False, True
        shelf.failures += 1
        for recipient, wanted in request.recipients.items():
            shelf.waiting.setdefault(recipient, wanted)
        self._hold(stream_id, shelf.failures, now)

    def _hold(self, held: HistoryRequest | str, failures: int, now: float) -> None:
        first, longest = self._limits.retry_interval
        pause = min(first * 2 ** min(failures - 1, _MOST_DOUBLINGS), longest)
        due = now + pause * random.uniform(0.5, 1.0)
        heapq.heappush(self._held, (due, next(self._order), held))

    def batch_done(self, seconds: float, *, is_whole: bool) -> None:
        """How long the batch took, and whether all of it was answered."""
        if not is_whole or seconds > self._limits.slow_batch:
            self._window = max(self._window // 2, self._limits.page_bytes)
        elif self._is_window_full:
            self._window = min(self._window + self._limits.page_bytes, self._limits.batch_bytes)

    def tick(self, now: float) -> None:
        """Pauses end, and what was kept is forgotten."""
        while self._held and self._held[0][0] <= now:
            held = heapq.heappop(self._held)[2]
            if isinstance(held, HistoryRequest):
                again = self._small.setdefault(held.key, held)
                again.recipients.update(held.recipients)
            else:
                self._shelves[held].is_held = False
                self._queue(held, self._shelves[held])
        for stream_id in [key for key, (_, _, at) in self._kept.items() if now - at >= _KEPT]:
            del self._kept[stream_id]
            self._requeue(stream_id)
        while self._idle:
            stream_id = next(iter(self._idle))
            if now - self._shelves[stream_id].idle_since < _KEPT:
                break
            del self._idle[stream_id], self._shelves[stream_id]

    def _queue(self, stream_id: str, shelf: _Shelf) -> None:
        if shelf.is_reading or shelf.is_held:
            return
        if not shelf.waiting:
            self._idle[stream_id] = None
            return
        self._idle.pop(stream_id, None)
        needs_look = shelf.entry_size is None or stream_id in self._kept
        # Who comes after a look was found to be of no use waits for the page with the others.
        if needs_look and stream_id not in self._fulls:
            self._looks[stream_id] = None
        else:
            self._fulls[stream_id] = None

    def _requeue(self, stream_id: str) -> None:
        """What it waits for is another kind of read now."""
        if stream_id in self._looks:
            del self._looks[stream_id]
            self._queue(stream_id, self._shelves[stream_id])

    def _note(self, shelf: _Shelf, request: HistoryRequest, page: HistoryPage, now: float) -> None:
        """Learns how large a page of the stream is, and keeps it."""
        stream_id = request.key.stream_id
        if page.length:
            shelf.entry_size = max(page.entry_size, page.size // page.length)
        shelf.read_up_to = (0, 0) if page.is_complete else page.runs[-1].last[:2]
        shelf.page_bytes = max(page.size, self._size_of(shelf) // 2)
        self._typical = max(page.size, self._typical // 2)
        self._kept.pop(stream_id, None)
        if page.length >= self._limits.keep_from:
            self._kept[stream_id] = page, request.key, now
            if len(self._kept) > _MOST_KEPT:
                forgotten = next(iter(self._kept))
                del self._kept[forgotten]
                self._requeue(forgotten)

    def _shown_by_look(
        self, request: HistoryRequest, summary: HistoryPage
    ) -> tuple[HistoryPage, HistoryKey] | None:
        """The page that was kept, if it is what the log holds now; or that there is nothing."""
        stream_id = request.key.stream_id
        if summary.is_complete:
            limit = next(iter(request.recipients.values())).key.limit
            return summary, request.key._replace(limit=limit)
        kept = self._kept.get(stream_id)
        if kept is None:
            return None
        page = kept[0].as_of(summary)
        if page is None:
            del self._kept[stream_id]
            return None
        return page, kept[1]


def _those_still_there(
    waiting: Mapping[Recipient, HistoryRequest],
) -> dict[Recipient, HistoryRequest]:
    return {each: wanted for each, wanted in waiting.items() if not each.is_gone}


def _place(request: HistoryRequest) -> tuple[int, int]:
    return request.key.place
