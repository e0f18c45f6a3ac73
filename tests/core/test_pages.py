"""Which pages are read, for whom, and how many at once."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from streamy_redis.core.history import HistoryPage, HistoryRequest
from streamy_redis.core.pages import PageLimits, Pages
from streamy_redis.core.publication import Position
from tests.core.redis_model import RedisModel

LIMITS = PageLimits(
    page_bytes=1000,
    keep_from=3,
    batch_requests=10,
    batch_bytes=4000,
    slow_batch=0.1,
    retry_interval=(0.5, 1.5),
)
# So that none is kept.
NOTHING_KEPT = 10**6


@dataclass(eq=False)
class Reader:
    """Somebody who waits for a page."""

    is_gone: bool = False
    page: HistoryPage | None = None


class Asking:
    """The pages of one process, and the logs that it reads."""

    def __init__(self, *, keep_from: int = 3, page_events: int = 100) -> None:
        self.pages = Pages(
            PageLimits(
                **{name: getattr(LIMITS, name) for name in LIMITS.__slots__}
                | {"keep_from": keep_from}
            )
        )
        self.page_events = page_events
        self.redis = RedisModel()
        self.now = 10.0

    def after(self, position: Position, stream_id: str = "s") -> Reader:
        reader = Reader()
        request = HistoryRequest.after(stream_id, position, limit=self.page_events)
        self.pages.ask(request, reader)
        return reader

    def check(self, stream_id: str = "s") -> Reader:
        reader = Reader()
        request = HistoryRequest.after(stream_id, Position(10**15, 1, "0"), limit=0)
        self.pages.ask(request, reader)
        return reader

    def batch(self) -> list[HistoryRequest]:
        return self.pages.requests_to_send()

    def answer(self, batch: list[HistoryRequest]) -> None:
        for request in batch:
            for reader, page in self.pages.answered(request, self.redis.read(request), self.now):
                assert isinstance(reader, Reader)
                reader.page = page

    def read(self) -> int:
        """How many pages were read until nobody asks any more."""
        count = 0
        while self.pages.has_requests:
            batch = self.batch()
            self.answer(batch)
            count += sum(not request.is_for_summary for request in batch)
        return count

    def send(self, count: int) -> list[Position]:
        for _ in range(count):
            self.redis.send()
        return [entry.position for entry in self.redis.log]


# -- one page for many ----------------------------------------------------------------------------


@pytest.mark.parametrize("page_events", [100, 7, 1])
def test_each_gets_what_a_read_of_its_own_would_give(page_events: int):
    asking = Asking(page_events=page_events)
    positions = asking.send(12)
    asking.redis.add_foreign()
    asking.redis.delete_one()
    positions = [*asking.send(3), Position(positions[0].epoch, 0, "0"), positions[6]]
    readers = [asking.after(position) for position in positions]

    asking.read()

    for reader, position in zip(readers, positions, strict=True):
        page = reader.page
        assert page is not None
        own = asking.redis.read(HistoryRequest.after("s", position, limit=100))
        shown = [frame for run in page.runs for frame in run.frames]
        assert (page.at_cursor, page.at_cursor_is_end) == (own.at_cursor, own.at_cursor_is_end)
        assert [frame for run in own.runs for frame in run.frames][: len(shown)] == shown
        assert page.is_complete == (page.runs[-1:] == own.runs[-1:]) or page_events == 1
        heads = [(run.first, run.previous) for run in page.runs]
        assert heads == [(run.first, run.previous) for run in own.runs][: len(heads)]


def test_those_with_a_thousand_cursors_read_one_page():
    asking = Asking()
    readers = [asking.after(position) for position in asking.send(20)]

    assert asking.read() == 1
    assert all(reader.page for reader in readers)


def test_a_page_that_was_asked_for_before_somebody_came_is_none_for_them():
    """It may lack what was sent before they subscribed."""
    asking = Asking(keep_from=NOTHING_KEPT)
    first, *_ = asking.send(3)
    asking.after(first)
    under_way = asking.batch()

    late = asking.after(first)

    assert not asking.batch()
    asking.answer(under_way)
    assert late.page is None
    assert asking.read() == 1
    assert late.page is not None


def test_those_who_are_far_get_their_page_however_many_come_to_the_beginning():
    asking = Asking(keep_from=NOTHING_KEPT, page_events=3)
    positions = asking.send(12)
    far = asking.after(positions[9])
    pages = 0

    while far.page is None:
        asking.after(positions[0])
        asking.answer(asking.batch())
        pages += 1

    assert pages <= 4


def test_who_comes_back_to_a_page_that_was_kept_while_another_has_its_turn_next():
    asking = Asking(page_events=3)
    positions = asking.send(12)
    asking.after(positions[0])
    asking.read()
    ask_for(asking, 2)
    # What was kept is of no use to him, and the others are before him.
    far = asking.after(positions[9])
    asking.answer(asking.batch())

    near = asking.after(positions[0])
    under_way = asking.batch()
    asking.pages.tick(asking.now + 1.0)
    asking.answer(under_way)
    asking.read()

    assert near.page is not None
    assert far.page is not None


def test_what_those_who_left_were_waiting_for_is_not_read():
    asking = Asking()
    first, *_ = asking.send(3)
    readers = [asking.after(first), asking.after(first, "another"), asking.check()]
    for reader in readers:
        reader.is_gone = True

    assert not asking.batch()
    assert not asking.pages.has_requests


def test_those_who_left_are_forgotten_while_somebody_stays():
    asking = Asking()
    staying = asking.check()
    for _ in range(3):
        asking.check().is_gone = True
        [request] = asking.batch()
        asking.pages.failed(request, asking.now)
        asking.now += 1.5
        asking.pages.tick(asking.now)

    [request] = asking.batch()

    assert list(request.recipients) == [staying]


def test_those_who_have_seen_all_make_nobody_forget_how_large_events_are():
    asking = Asking()
    first, *_, last = asking.send(12)
    for position in (first, last):
        asking.after(position)
        asking.read()
        asking.now += 0.6
    # What was kept is forgotten, and the stream isn't.
    asking.pages.tick(asking.now)
    reader = asking.after(first)

    [request] = asking.batch()
    if request.is_look:
        asking.answer([request])
        [request] = asking.batch()

    assert request.count > 0
    asking.answer([request])
    assert reader.page is not None


# -- batches --------------------------------------------------------------------------------------


def ask_for(asking: Asking, streams: int) -> None:
    """So many streams of which it is known how large their events are."""
    first, *_ = asking.send(2)
    for n in range(streams):
        asking.after(first, f"s{n}")
    while asking.pages._looks:
        asking.answer(asking.pages._looks_to_send(LIMITS.batch_requests))


def test_full_pages_begin_with_one_and_become_more_while_redis_is_quick():
    asking = Asking(keep_from=NOTHING_KEPT)
    ask_for(asking, 30)

    sizes = []
    for _ in range(6):
        sizes.append(len(asking.batch()))
        asking.pages.batch_done(0.01, is_whole=True)

    assert sizes == [1, 2, 3, 4, 4, 4]


@pytest.mark.parametrize("took", [0.2, None])
def test_they_become_fewer_when_it_is_slow_or_cut_short(took: float | None):
    asking = Asking(keep_from=NOTHING_KEPT)
    ask_for(asking, 30)
    for _ in range(4):
        asking.batch()
        asking.pages.batch_done(0.01, is_whole=True)

    sizes = []
    for _ in range(3):
        asking.pages.batch_done(took or 0.0, is_whole=took is not None)
        sizes.append(len(asking.batch()))

    assert sizes == [2, 1, 1]


def test_small_pages_are_more_in_one_batch():
    asking = Asking(keep_from=NOTHING_KEPT)
    ask_for(asking, 30)

    sizes = []
    while asking.pages.has_requests:
        batch = asking.batch()
        sizes.append(len(batch))
        asking.answer(batch)

    # Of some 50 bytes each.
    assert sizes[0] == 1
    assert max(sizes) == LIMITS.batch_requests


def test_position_checks_go_before_full_pages():
    asking = Asking()
    ask_for(asking, 5)
    asking.check()

    batch = asking.batch()

    assert [request.is_for_summary for request in batch] == [True, False]


def test_a_page_goes_with_them_however_many_there_are():
    asking = Asking()
    ask_for(asking, 5)
    for n in range(100):
        asking.check(f"checked {n}")

    batch = asking.batch()

    assert [request.is_for_summary for request in batch] == [True] * 9 + [False]


# -- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [Asking.check, lambda asking: asking.after(asking.send(2)[0])])
def test_what_fails_is_asked_again_after_a_pause_that_grows(ask):
    asking = Asking()
    reader = ask(asking)
    pauses = []
    for _ in range(6):
        [request] = asking.batch()
        asking.pages.failed(request, asking.now)
        failed_at = asking.now
        while not asking.pages.has_requests:
            asking.now += 0.05
            asking.pages.tick(asking.now)
        pauses.append(asking.now - failed_at)

    assert 0.25 <= pauses[0] <= 0.6
    assert all(0.7 <= pause <= 1.6 for pause in pauses[2:]), pauses
    assert len(set(pauses[2:])) > 1, "all processes would come back in one moment"
    asking.read()
    assert reader.page is not None


def test_what_may_be_too_large_as_it_is_is_asked_for_in_halves_and_then_by_its_bytes():
    asking = Asking()
    first, *_ = asking.send(50)
    asking.after(first)
    asking.answer(asking.batch())
    counts = []
    for _ in range(5):
        [request] = asking.batch()
        counts.append(request.count)
        asking.pages.failed(request, asking.now)
        asking.now += 1.5
        asking.pages.tick(asking.now)

    assert counts == [counts[0], counts[0] // 2, counts[0] // 4, 0, 0]


def test_who_comes_while_a_stream_is_held_waits_with_the_others():
    asking = Asking()
    first, *_ = asking.send(1)
    asking.after(first)
    asking.pages.failed(asking.batch()[0], asking.now)

    late = asking.after(first)

    assert not asking.pages.has_requests
    asking.pages.tick(asking.now + 0.5)
    asking.read()
    assert late.page is not None


def test_nothing_is_left_of_streams_that_nobody_reads():
    asking = Asking()
    ask_for(asking, 20)
    asking.read()
    for _ in range(2):
        asking.now += 1.0
        asking.pages.tick(asking.now)

    assert not asking.pages._shelves
    assert not asking.pages._kept
