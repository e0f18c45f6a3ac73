"""Which texts are joined, when they are due, and what stays the same at every try."""

from __future__ import annotations

import asyncio
import json

import pytest

from streamy_redis.core.coalescing import Coalescer, end_block
from streamy_redis.core.event import read_frame
from streamy_redis.exceptions import StreamEnded


def coalescer(*, interval: float = 1.0, max_size: int = 100) -> Coalescer:
    return Coalescer("stream", interval, max_size=max_size, retry_interval=0.5)


def add(box: Coalescer, text: str, name: str | None = None, now: float = 0.0) -> None:
    size = box.size(text, name)
    assert not box.must_send_before(size, name, now)
    box.add(text, size, name, now)


def test_it_is_due_an_interval_after_the_first_text():
    box = coalescer()

    add(box, "a", now=5.0)
    add(box, "b", now=5.5)

    assert box.due_at == 6.0
    assert not box.must_send_before(1, None, 5.9)
    assert box.must_send_before(1, None, 6.0)


def test_an_empty_text_is_nothing():
    box = coalescer()

    add(box, "")

    assert box.due_at is None
    assert box.batch("key") is None


def test_neighbours_of_one_name_are_one_event():
    box = coalescer()
    for text, name in (("a", None), ("b", None), ("c", "x"), ("d", "x"), ("e", None)):
        add(box, text, name)

    batch = box.batch("key")

    assert batch is not None
    assert batch.blocks == [b"data: ab\n", b"event: x\ndata: cd\n", b"data: e\n"]


def test_a_batch_that_was_tried_stays_as_it_is_until_it_was_sent():
    box = coalescer()
    add(box, "a")
    first = box.batch("one")
    assert box.must_send_before(1, None, 0.0), "it takes no more"

    again = box.batch("two")

    assert first is not None
    assert again is not None
    assert (again.blocks, again.key) == (first.blocks, "one")
    assert (first.is_repeat, again.is_repeat) == (False, True)
    box.sent()
    assert box.due_at is None
    add(box, "b")
    fresh = box.batch("three")
    assert fresh is not None
    assert (fresh.key, fresh.is_repeat) == ("three", False)


def test_the_size_is_that_of_all_texts_in_utf_8():
    box = coalescer(max_size=10)
    add(box, "ßß", "x")
    add(box, "12345")

    assert not box.must_send_before(1, None, 0.0)
    assert box.must_send_before(2, None, 0.0)


def test_the_events_of_a_batch_are_bounded():
    box = coalescer(max_size=10_000)
    for n in range(100):
        add(box, "a", str(n))

    assert box.must_send_before(1, "another", 0.0)
    assert not box.must_send_before(1, "99", 0.0)


@pytest.mark.parametrize(
    ("texts", "data"),
    [
        ((("a\r", None), ("\nb", None)), "a|b"),
        ((("a\r", None), ("", None), ("\n", None), ("\nb", None)), "a||b"),
        ((("a\r", None), ("\r", None), ("\nb", None)), "a||b"),
        ((("a\n", None), ("\nb", None)), "a||b"),
        # Texts of another name are another text.
        ((("a\r", None), ("\nb", "x")), "a||b"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_line_end_in_two_texts_is_one(
    texts: list[tuple[str, str | None]], data: str, at_once: bool
):
    box = coalescer()
    blocks = []
    for text, name in texts:
        add(box, text, name)
        batch = None if at_once else box.batch("key")
        if batch is not None:
            blocks += batch.blocks
            box.sent()
    batch = box.batch("key")
    blocks += batch.blocks if batch is not None else []

    frames = (read_frame("room", block) for block in blocks)

    assert "".join(frame.data for frame in frames).replace("\n", "|") == data


@pytest.mark.parametrize(
    ("exc", "data"),
    [
        (None, {"reason": "done"}),
        (ValueError("secret"), {"reason": "failed", "error": "ValueError"}),
        (asyncio.CancelledError(), {"reason": "cancelled"}),
        (KeyboardInterrupt(), {"reason": "cancelled"}),
    ],
)
def test_the_end_says_why(exc: BaseException | None, data: dict[str, str]):
    block = end_block(exc).decode()

    assert block.startswith("event: stream-end\ndata: ")
    assert json.loads(block.partition("data: ")[2]) == data


def test_a_batch_that_was_put_off_is_due_again_and_is_news_once():
    box = coalescer()
    add(box, "a")
    assert box.batch("key")

    assert box.put_off(3.0), "the first time"
    assert box.due_at == 3.5
    assert not box.put_off(4.0)
    box.sent()
    add(box, "b")
    assert box.batch("next")
    assert box.put_off(5.0), "after a success"


def test_a_refused_batch_is_gone_and_the_stream_takes_no_more():
    box = coalescer()
    add(box, "a")
    assert box.batch("key")
    box.refused()

    assert (box.due_at, box.batch("next")) == (None, None)
    assert box.is_over, "whoever sent it was told"
    for _ in range(2):
        with pytest.raises(StreamEnded):
            box.check_open()


def test_who_calls_next_is_told_of_text_that_nobody_knows_was_lost():
    box = coalescer()
    add(box, "a")
    assert box.batch("key")
    box.refused()
    box.lost()

    assert not box.is_over
    with pytest.raises(StreamEnded):
        box.check_open()
    assert box.is_over


def test_an_open_stream_is_over_at_its_end():
    box = coalescer()
    box.check_open()
    assert not box.is_over

    box.ended()

    assert box.is_over
