"""What a test sees of a stream, through the test client of each framework."""

from __future__ import annotations

import time

import pytest

from streamy_redis.testing import MissingEvents, StreamEvent
from tests.deadline import Deadline

from .sites import Site


def test_what_is_posted_is_collected_once_and_in_order(site: Site, room: str):
    with site.open(f"/streams/{room}") as stream:
        for text in ("a", "b\nc", '{"d": 1}'):
            assert site.post(f"/streams/{room}", text) == 200

        first, second = stream.collect(2)
        [third] = stream.collect(1)

        assert [e.data for e in (first, second, third)] == ["a", "b\nc", '{"d": 1}']
        assert third.json() == {"d": 1}
        assert (first.name, first.retry) == ("message", None)
        assert stream.last_event_id == third.id != second.id
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream; charset=utf-8"


def test_a_client_that_comes_back_gets_what_it_missed(site: Site, room: str):
    with site.open(f"/streams/{room}") as stream:
        site.post(f"/streams/{room}", "seen")
        [seen] = stream.collect(1)
        site.post(f"/streams/{room}", "not collected")
        Deadline(5).until(lambda: stream.last_event_id != seen.id, "it comes")
        stream.close()
        site.post(f"/streams/{room}", "missed")

        stream.reconnect()
        site.post(f"/streams/{room}", "live")

        assert [e.data for e in stream.collect(3)] == ["not collected", "missed", "live"]


def test_a_client_that_has_seen_nothing_yet_comes_back_too(site: Site, room: str):
    with site.open(f"/streams/{room}") as stream:
        stream.close()
        stream.close()
        site.post(f"/streams/{room}", "missed")
        stream.reconnect()

        assert [e.data for e in stream.collect(1)] == ["missed"]


def test_after_the_end_it_is_told_to_stop(site: Site, room: str):
    with site.open(f"/streams/{room}") as stream:
        site.post(f"/streams/{room}", "last")
        site.post(f"/streams/{room}/end")

        events = stream.collect_to_end()
        assert [(e.name, e.data) for e in events] == [("message", "last"), ("stream-end", "bye")]
        Deadline(5).until(lambda: stream.is_over, "the response ends")
        assert stream.is_complete

        stream.reconnect()
        assert (stream.status, stream.is_over, stream.text) == (204, True, "")


def test_a_cursor_and_a_query_are_passed_on(site: Site, room: str):
    for text in ("a", "b", "c"):
        site.post(f"/streams/{room}", text)
    with site.open(f"/streams/{room}?replay=all") as stream:
        a, *_ = stream.collect(3)

    with site.open(f"/streams/{room}", last_event_id=a.id) as stream:
        assert [e.data for e in stream.collect(2)] == ["b", "c"]


def test_cookies_and_headers_are_those_of_the_client(site: Site):
    token = {"X-Token": "t"}
    with site.open("/private", headers=token) as stream:
        assert stream.status == 403

    site.post("/login")

    with site.open("/private", headers=token) as stream:
        assert stream.status == 200
    with site.open("/private") as stream:
        assert stream.status == 403


def test_too_many_and_bad_ids_are_answers_like_any_other(site: Site, room: str):
    with site.open(f"/streams/{room}"), site.open(f"/streams/{room}"):
        # There each stream has an event loop of its own.
        if site.kind != "starlette-without-with":
            with site.open(f"/streams/{room}") as third:
                assert third.status == 503
                assert int(third.headers["retry-after"]) > 0
    with site.open("/streams/" + "x" * 513) as refused:
        assert refused.status == 400
        assert "512 bytes" in refused.text


def test_leaving_the_block_frees_the_subscriber_and_all_the_rest(site: Site, room: str):
    for _ in range(4):
        with site.open(f"/streams/{room}") as stream:
            assert stream.status == 200
        assert stream.is_over
        assert site.left_over == []

    assert site.hooks.closed == 4


def test_the_block_is_left_with_the_test_s_own_error(site: Site, room: str):
    with pytest.raises(KeyError, match="mine"), site.open(f"/streams/{room}"):
        raise KeyError("mine")

    assert site.left_over == []


# -- what doesn't come ----------------------------------------------------------------------------


def test_what_doesn_t_come_in_time_is_told_with_what_came(site: Site, room: str):
    with site.open(f"/streams/{room}") as stream:
        site.post(f"/streams/{room}", "the only one")

        begin = time.monotonic()
        with pytest.raises(MissingEvents) as caught:
            stream.collect(3, timeout=0.2)
        assert 0.2 <= time.monotonic() - begin < 2

        text = str(caught.value)
        assert f"GET /streams/{room}: 1 of 3 events came within 0.2 s" in text
        assert "the stream is open" in text
        assert "message 'the only one'" in text
        assert [e.data for e in caught.value.events] == ["the only one"]
        with pytest.raises(AssertionError, match=r"stream-end didn't come within 0\.1 s"):
            stream.collect_to_end(timeout=0.1)
        # Nothing of it was taken.
        assert stream.collect(1) == caught.value.events


def test_what_can_t_come_any_more_is_not_waited_for(site: Site):
    with site.open("/foreign", wait_open=False, timeout=20) as stream:
        begin = time.monotonic()
        with pytest.raises(MissingEvents, match="2 of 3 events came\n  the response has ended"):
            stream.collect(3)
        with pytest.raises(MissingEvents, match="stream-end didn't come\n"):
            stream.collect_to_end()
        assert time.monotonic() - begin < 5

        a, b = stream.collect(2)
        assert a == StreamEvent("7", "message", "a", 5)
        assert b == StreamEvent("7", "message", "b\n")


def test_an_answer_that_is_no_stream_is_shown(site: Site):
    with site.open("/page") as stream:
        assert (stream.status, stream.text) == (200, "a page")
        with pytest.raises(MissingEvents, match=r"answer is 200, text/.+: no stream. a page"):
            stream.collect(1)
    with (
        site.open("/nowhere") as stream,
        pytest.raises(MissingEvents, match=r"the answer is 404, text/.+: no stream"),
    ):
        stream.collect(1)


@pytest.mark.parametrize("path", ["/silent", "/stuck"])
def test_an_endpoint_that_never_sends_or_answers_holds_up_nobody(site: Site, path: str):
    begin = time.monotonic()
    with (
        pytest.raises(MissingEvents, match=rf"{path}: the stream didn't open within 0.2 s"),
        site.open(path, timeout=0.2),
    ):
        raise AssertionError("it has opened")
    assert time.monotonic() - begin < 6

    # A thread in somebody else's code can't be ended; it ends when that goes on.
    site.hooks.release.set()
    Deadline(5).until(lambda: not site.left_over, lambda: site.left_over)


@pytest.mark.parametrize("site", ["starlette"], indirect=True)
def test_an_endpoint_that_blocks_its_event_loop_holds_up_nobody(site: Site):
    begin = time.monotonic()
    with (
        pytest.raises(MissingEvents, match="the app hasn't answered"),
        site.open("/blocked", timeout=0.2),
    ):
        raise AssertionError("it has opened")
    assert time.monotonic() - begin < 6

    site.hooks.release.set()
    Deadline(5).until(lambda: not site.left_over, lambda: site.left_over)


def test_what_the_app_raises_is_raised_in_the_test(site: Site):
    with pytest.raises(ZeroDivisionError, match="broken"), site.open("/broken"):
        raise AssertionError("it has opened")

    with (
        pytest.raises(MissingEvents, match="1 of 2 events came\n  the app raised Zero") as caught,
        site.open("/breaks") as stream,
    ):
        stream.collect(2)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)

    def read_no_further() -> None:
        with site.open("/breaks") as stream:
            stream.collect(1)
            Deadline(5).until(lambda: stream.is_over, "it breaks")

    with pytest.raises(ZeroDivisionError, match="later"):
        read_no_further()


def test_arguments_of_the_wrong_kind_are_refused(site: Site, room: str):
    with pytest.raises(ValueError, match="timeout"):
        site.open(f"/streams/{room}", timeout=0).__enter__()
    with site.open(f"/streams/{room}") as stream:
        with pytest.raises(ValueError, match="send something that does"):
            stream.collect(0)
        with pytest.raises(ValueError, match="timeout"):
            stream.collect(1, timeout=-1)
