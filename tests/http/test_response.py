"""A response from its headers to its end, on every kind of server."""

from __future__ import annotations

import json
import re

import pytest

from tests.deadline import Deadline
from tests.exactly_once import Delivery, SentLog, position_of
from tests.sites import Site
from tests.web_servers import http

FIRST_BLOCK = re.compile(
    rb"retry: (\d+)\nevent: stream-open\ndata: {}\nid: ([1-9]\d{15}-\d+-(?:0|[0-9a-f]{8}))\n\n"
)


def first_block(body: bytes) -> tuple[int, str]:
    """Retry and id of the first block, which must be exactly of the documented form."""
    match = FIRST_BLOCK.match(body)
    assert match, body[:300]
    return int(match[1]), match[2].decode()


def test_the_headers_of_a_stream(site: Site, room: str):
    browser = site.browser(room).wait_open()

    assert browser.statuses == [200]
    assert browser.header("content-type") == "text/event-stream; charset=utf-8"
    assert browser.header("cache-control") == "no-store, no-transform"
    assert browser.header("x-accel-buffering") == "no"
    assert browser.header("content-length") is None
    assert browser.header("content-encoding") is None


def test_events_of_another_process_arrive(site: Site, room: str):
    browser = site.browser(room).wait_open()

    first = site.streams.send_event(room, "é\n😀\r\nx", "joined")
    second = site.streams.send_event(room, {"a": 1})

    browser.wait_for(2)
    assert [(e.type, e.data, e.last_event_id) for e in browser.messages] == [
        ("joined", "é\n😀\nx", first),
        ("message", '{"a":1}', second),
    ]


def test_events_sent_from_a_view_arrive(site: Site, room: str):
    browser = site.browser(room).wait_open()

    answer = http.post(site.server.stream_url("send", room), content="from a view")

    assert answer.json()["id"] == browser.wait_for(1).messages[0].last_event_id


def test_the_first_block_comes_at_once(site: Site, room: str):
    browser = site.browser(room).wait_open(2)

    retry, event_id = first_block(browser.body)
    assert 50 <= retry <= 200
    assert browser.events[0].last_event_id == event_id
    assert event_id.endswith("-0-0"), "nothing has been sent: a start cursor"


def test_retry_is_random(site: Site, room: str):
    retries = set()
    for _ in range(4):
        retries.add(first_block(site.browser(room).wait_open().body)[0])
        site.leave()

    assert len(retries) > 1


def test_the_id_of_the_first_block_is_just_before_what_follows(site: Site, room: str):
    ids = site.streams.send_events(room, ["a", "b", "c"])
    epoch = position_of(ids[0])[0]

    def opened(**kwargs: object) -> str:
        _, event_id = first_block(site.browser(room, **kwargs).wait_open().body)
        site.leave()
        return event_id

    assert opened() == ids[2]
    assert opened(replay=1) == ids[1]
    assert position_of(opened(replay="all")) == (epoch, 0)
    assert opened(last_event_id=ids[1]) == ids[1]


def test_a_client_that_has_seen_nothing_yet_resumes_too(site: Site, room: str):
    browser = site.browser(room).wait_open()
    browser.cut(reset=True)

    # Sent while it was away, by its own retry interval.
    ids = site.streams.send_events(room, ["a", "b"])

    browser.wait_for(2)
    assert [e.last_event_id for e in browser.messages] == ids
    assert not browser.of_type("stream-reset")


def test_replay_then_live(site: Site, room: str):
    site.streams.send_events(room, ["a", "b", "c"])
    browser = site.browser(room, replay=2).wait_for(2)

    site.streams.send_event(room, "d")

    browser.wait_for(3)
    assert browser.data == ["b", "c", "d"]


def test_a_client_resumes_where_it_was(site: Site, room: str):
    sent = SentLog()
    browser = site.browser(room).wait_open()
    for n in range(60):
        sent.returned(site.streams.send_event(room, str(n)), str(n))
        if n % 20 == 10:
            browser.cut(reset=n == 30)

    browser.wait_for(60)
    Delivery(sent, browser.events).assert_exactly_once()
    # Cuts that came before it was back cut nothing.
    assert browser.opens >= 2


def test_a_cursor_can_come_as_argument_and_the_header_wins(site: Site, room: str):
    ids = site.streams.send_events(room, ["a", "b", "c"])

    argument = site.browser(room, query_last_event_id=ids[0]).wait_for(2)
    assert argument.data == ["b", "c"]
    site.leave()

    both = site.browser(room, query_last_event_id=ids[0], last_event_id=ids[1]).wait_for(1)
    assert both.data == ["c"]
    assert both.events[0].last_event_id == ids[1]


def test_a_polyfill_s_cursor_comes_in_the_address(site: Site, room: str):
    ids = site.streams.send_events(room, ["a", "b", "c"])

    def seen(**cursors: str) -> list[str]:
        newest = site.browser(room, **cursors).wait_for(lambda b: "c" in b.data)
        site.leave()
        return newest.data

    assert seen(lastEventId=ids[0], query_last_event_id=ids[1]) == ["b", "c"]
    assert seen(lastEventId=ids[0], last_event_id=ids[1]) == ["c"], "the header wins"
    assert seen(lastEventId="nonsense", query_last_event_id=ids[1]) == ["c"]


def test_a_keep_alive_is_a_comment_and_one_newline(site: Site, room: str):
    browser = site.browser(room).wait_open()
    size = len(browser.body)

    browser.wait_for(lambda b: len(b.body) >= size + 4, 10, "two keep-alives")

    rest = browser.body[size:]
    assert rest == b":\n" * (len(rest) // 2)
    assert len(browser.events) == 1, "no client sees an event of it"
    assert browser.connects == 1


def test_keep_alives_go_to_idle_connections_only(main_site: Site, room: str):
    site = main_site
    browser = site.browser(room, keep_alive_interval=1.0).wait_open()
    size = len(browser.body)

    for n in range(8):
        site.streams.send_event(room, str(n))
        browser.wait_for(n + 1)
        Deadline(0.2).stays(lambda: True)

    assert b":\n" not in re.sub(rb"(?m)^(id|data): .*\n", b"", browser.body[size:])


def test_event_name_names_the_unnamed(site: Site, room: str):
    browser = site.browser(room, event_name="chat").wait_open()
    site.streams.send_event(room, "a")
    event_id = site.streams.send_event(room, "b", "joined", retry=150)
    site.streams.end_stream(room, "bye")

    browser.wait_closed()
    assert [(e.type, e.data) for e in browser.events[1:]] == [
        ("chat", "a"),
        ("joined", "b"),
        ("stream-end", "bye"),
    ]
    raw = bytes(browser.received[0])
    assert f"event: joined\nretry: 150\ndata: b\nid: {event_id}\n\n".encode() in raw
    assert re.search(rb"\nevent: chat\ndata: a\nid: \S+\n\n", raw)


def test_the_caller_s_headers_go_over_ours(site: Site, room: str):
    headers = {"Cache-Control": "private", "x-accel-buffering": "maybe", "X-Foo": "bar"}

    browser = site.browser(room, query_headers=json.dumps(headers)).wait_open()

    assert browser.header("cache-control") == "private"
    assert browser.header("x-accel-buffering") == "maybe"
    assert browser.header("x-foo") == "bar"
    assert browser.header("content-type") == "text/event-stream; charset=utf-8"


def test_head_has_the_headers_and_subscribes_nothing(site: Site, room: str):
    answer = http.head(site.server.stream_url("events", room), timeout=5)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store, no-transform"
    assert answer.content == b""
    assert site.subscribed(room) == 0


@pytest.mark.parametrize("stream_id", ["a\tb", "x" * 513, "a\x01", "\x7f"], ids=ascii)
def test_a_bad_stream_id_is_400_and_the_rule_as_text(main_site: Site, stream_id: str):
    answer = http.get(main_site.server.stream_url("events", stream_id[:600]), timeout=5)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert "stream_id" in answer.text
    assert "must" in answer.text


def test_an_empty_stream_id_is_400(site: Site):
    assert http.get(f"{site.server.url}/events/", timeout=5).status_code == 400


@pytest.mark.parametrize("stream_id", ["a/b:c", "{x}*?", "é😀", "%2F", "a b", "+", "null"])
def test_every_other_id_comes_from_the_url_as_it_is(site: Site, room: str, stream_id: str):
    stream_id = f"{room} {stream_id}"
    browser = site.browser(stream_id).wait_open()

    site.streams.send_event(stream_id, "x")

    assert browser.wait_for(1).data == ["x"]


@pytest.mark.parametrize("cursor", ["$", "0", "nonsense", "1-0", "9" * 300])
def test_a_bad_cursor_is_no_cursor(main_site: Site, room: str, cursor: str):
    site = main_site
    site.streams.send_events(room, ["a", "b"])

    browser = site.browser(room, headers={"Last-Event-ID": cursor}, replay=1)

    browser.wait_for(1)
    assert (browser.data, browser.statuses) == (["b"], [200])
    assert not browser.of_type("stream-reset")


def test_a_gap_is_one_reset_then_what_is_kept_then_live(site: Site, room: str):
    old = site.streams.send_event(room, "old")
    site.streams.delete_stream(room)
    ids = site.streams.send_events(room, ["a", "b"])

    browser = site.browser(room, last_event_id=old).wait_for(2)
    ids.append(site.streams.send_event(room, "live"))
    browser.wait_for(3)

    assert [e.type for e in browser.events] == ["stream-open", "stream-reset", *["message"] * 3]
    opened, reset, *messages = browser.events
    assert opened.last_event_id == old, "a client cut off here asks the same again"
    assert [e.last_event_id for e in messages] == ids
    told = json.loads(reset.data)
    assert (told["requested"], told["first"]) == (old, ids[0])
    assert told["reason"]
    assert position_of(reset.last_event_id) == (position_of(ids[0])[0], 0)
    raw = bytes(browser.received[0])
    assert raw.count(b"event: stream-reset\n") == 1


def test_the_end_comes_last_and_stops_the_client_for_good(site: Site, room: str):
    browser = site.browser(room).wait_open()
    site.streams.send_event(room, "last")

    site.streams.end_stream(room, "bye")

    browser.wait_closed()
    assert [(e.type, e.data) for e in browser.events] == [
        ("stream-open", "{}"),
        ("message", "last"),
        ("stream-end", "bye"),
    ]
    assert browser.ends == ["clean"]
    assert browser.statuses == [200, 204]


def test_a_newcomer_to_an_ended_stream_gets_replay_and_end(site: Site, room: str):
    site.streams.send_events(room, ["a", "b"])
    site.streams.end_stream(room, {"why": "done"})

    browser = site.browser(room, replay=1).wait_closed()

    assert [e.data for e in browser.events] == ["{}", "b", '{"why":"done"}']
    assert browser.statuses == [200, 204]


def test_a_cursor_at_the_end_is_204_without_a_body(site: Site, room: str):
    site.streams.send_event(room, "x")
    site.streams.end_stream(room)
    end = site.streams.info(room).last_event_id

    answer = http.get(
        site.server.stream_url("events", room), headers={"Last-Event-ID": end}, timeout=5
    )

    assert (answer.status_code, answer.content) == (204, b"")


def test_a_client_that_was_away_gets_what_is_missing_and_the_end(site: Site, room: str):
    first = site.streams.send_event(room, "seen")
    site.streams.send_event(room, "missed")
    site.streams.end_stream(room)

    browser = site.browser(room, last_event_id=first).wait_closed()

    assert [e.type for e in browser.events] == ["stream-open", "message", "stream-end"]
    assert browser.statuses == [200, 204]


def test_a_large_event_arrives_whole(site: Site, room: str):
    browser = site.browser(room).wait_open()
    data = "0123456789abcdef" * 65536

    site.streams.send_event(room, data)

    assert browser.wait_for(1, 20).data == [data]


def test_a_client_that_leaves_is_noticed(main_site: Site, room: str):
    site = main_site
    site.browser(room).wait_open()
    assert site.subscribed(room) == 1

    site.leave()

    Deadline(8).until(lambda: site.subscribed(room) == 0, "the channel is left")


def test_a_response_is_a_response(site: Site, room: str):
    browser = site.browser(room, path="decorated").wait_open()

    assert (
        browser.header(
            "set-cookie",
        )
        is not None
    )
    assert browser.header("set-cookie").startswith("seen=yes")  # type: ignore[union-attr]
    assert (browser.header("x-ours"), browser.header("x-late")) == ("1", "2")
    if not site.kind.is_asgi:
        assert browser.header("x-after-request") == "ran"


def test_what_runs_after_a_response_runs_when_the_client_has_left(site: Site, room: str):
    site.browser(room, path="decorated").wait_open()
    site.leave()

    def ran() -> bool:
        # Whichever worker had it: ask often enough to meet each.
        return room in site.server.get_json("/worker")["closed"]

    Deadline(8).until(ran, "call_on_close or the background task", every=0.05)
