"""The live board in a real Chromium, on both servers at once: what it shows, and what it asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.deadline import Deadline
from tests.proxy import CuttingProxy

from .board_stack import Boards, Everywhere

# ms until a browser comes back, sent where a test has other things to do than wait.
SOON = 100


class Tab:
    """One page of one board, behind a proxy."""

    def __init__(self, context: Any, proxy: CuttingProxy, stream_id: str) -> None:
        self.proxy = proxy
        self.page = context.new_page()
        self.page.goto(f"{proxy.url}/?stream={stream_id}")

    def say(self, text: str) -> None:
        self.page.fill("#text", text)
        self.page.click("#send button")

    def wait_state(self, state: str) -> None:
        expect(self.page.locator("body")).to_have_attribute("data-state", state, timeout=15_000)

    def wait_newest(self, event_id: str) -> None:
        newest = self.page.locator("#events li .id").first
        expect(newest).to_have_text(event_id, timeout=15_000)

    def wait_reconnects(self, count: int) -> None:
        expect(self.page.locator("#reconnects")).to_have_text(str(count), timeout=15_000)

    def rows(self) -> list[tuple[str, str]]:
        """Kind and id of what is listed, oldest first."""
        listed = self.page.locator("#events li").evaluate_all(
            "rows => rows.map(row => [row.dataset.kind, row.querySelector('.id').textContent])"
        )
        return [(kind, event_id) for kind, event_id in reversed(listed)]

    def ids(self) -> list[str]:
        return [event_id for _, event_id in self.rows() if event_id]

    def worker(self) -> str:
        return self.page.locator("#worker").get_attribute("data-pid") or ""

    def assert_zeros(self) -> None:
        for counter in ("#lost", "#repeated"):
            expect(self.page.locator(counter)).to_have_text("0")

    def received(self) -> int:
        return int(self.page.inner_text("#received"))


@pytest.fixture
def proxies(boards: Boards) -> Iterator[list[CuttingProxy]]:
    """One in front of each board."""
    proxies = [CuttingProxy(server.port) for server in boards.servers]
    yield proxies
    for proxy in proxies:
        proxy.close()


@pytest.fixture
def open_tabs(context: Any, proxies: list[CuttingProxy]) -> Callable[..., list[Tab]]:
    """So many tabs of each board, in one browser, all of them open."""

    def open_tabs(stream_id: str, count: int = 1) -> list[Tab]:
        tabs = [Tab(context, proxy, stream_id) for _ in range(count) for proxy in proxies]
        for tab in tabs:
            tab.wait_state("open")
        return tabs

    return open_tabs


def test_what_anyone_sends_is_shown_at_once_and_the_ids_advance_by_one(
    boards: Boards, open_tabs: Callable[..., list[Tab]], proxies: list[CuttingProxy]
):
    flask, starlette = open_tabs("live")

    for tab, text in ((flask, "from Flask"), (starlette, "from Starlette")):
        tab.say(text)
        for either in (flask, starlette):
            expect(either.page.get_by_text(text, exact=True)).to_be_visible()
    last = boards.streams.send_event("live", "from anywhere")

    for tab in (flask, starlette):
        tab.wait_newest(last)
        assert tab.ids() == [event.last_event_id for event in boards.log("live")]
        assert [event_id.split("-")[1] for event_id in tab.ids()] == ["1", "2", "3"]
        assert tab.received() == 3
        tab.assert_zeros()
    assert [len(proxy.requests) for proxy in proxies] == [1, 1]


def test_tabs_that_are_cut_in_the_middle_of_an_event_go_on_behind_the_one_before(
    boards: Boards,
    open_tabs: Callable[..., list[Tab]],
    proxies: list[CuttingProxy],
    picture: Callable[..., None],
):
    tabs = open_tabs("talk", 3)
    seen = boards.streams.send_event("talk", "come back soon", retry=SOON)
    for tab in tabs:
        tab.wait_newest(seen)

    for proxy in proxies:
        proxy.cut_inside_the_next_event()
    tabs[0].page.click("#job")

    for tab in tabs:
        tab.wait_reconnects(1)
    expect(tabs[0].page.locator("#events")).to_contain_text("12 of 25", timeout=15_000)
    with boards.job_paused():
        for tab, text in zip(tabs, ("Hello from Flask", "Hello from Starlette"), strict=False):
            tab.say(text)
            for each in tabs:
                expect(each.page.get_by_text(text)).to_be_visible()
        picture(tabs[0].page, "board", width=1040, height=580)
    for tab in tabs:
        expect(tab.page.locator("#events")).to_contain_text("25 of 25", timeout=15_000)
        tab.wait_newest(boards.log("talk")[-1].last_event_id)
        assert tab.ids() == [event.last_event_id for event in boards.log("talk")]
        assert tab.received() == len(tab.ids())
        tab.assert_zeros()
    sent = [event.last_event_id for event in boards.log("talk")]
    for proxy in proxies:
        # Chromium repeats by itself what meets a kept connection at the moment of its end.
        came_back = [r for r in proxy.requests if r.last_event_id and r.status]
        assert len(came_back) == 3, proxy.requests
        for request in came_back:
            assert sent.index(request.last_event_id) >= sent.index(seen)


def test_tabs_whose_worker_is_killed_go_on_at_another(
    boards: Boards, open_tabs: Callable[..., list[Tab]]
):
    tabs = open_tabs("kill", 2)
    # One of each board.
    killed = [tab.worker() for tab in tabs[:2]]
    hit = [tab for tab in tabs if tab.worker() in killed]

    with Everywhere(boards, "kill", interval=0.2):
        for tab in tabs:
            expect(tab.page.locator("#received")).not_to_have_text("0")
        for tab in tabs[:2]:
            tab.page.click("#kill")
        for tab in hit:
            tab.wait_reconnects(1)
            assert tab.worker() not in killed

    sent = [event.last_event_id for event in boards.log("kill")]
    for tab in tabs:
        tab.wait_newest(sent[-1])
        ids = tab.ids()
        assert ids == sent[-len(ids) :]
        assert tab.received() >= len(ids)
        tab.assert_zeros()


def test_an_end_is_shown_and_the_next_request_gets_204_which_is_the_last(
    boards: Boards, open_tabs: Callable[..., list[Tab]], proxies: list[CuttingProxy]
):
    tabs = open_tabs("end")
    for tab in tabs:
        # A page that knows nothing of an end.
        tab.page.evaluate(
            """() => {
                window.plain = new EventSource("stream/7?stream=end");
                plain.onmessage = (event) => (document.body.dataset.plain = event.data);
            }"""
        )
    boards.streams.send_event("end", "soon", retry=SOON)
    for tab in tabs:
        expect(tab.page.locator("body")).to_have_attribute("data-plain", "soon")

    tabs[0].page.click("#end")

    for tab in tabs:
        tab.wait_state("ended")
        assert [kind for kind, _ in tab.rows()] == ["message", "stream-end"]
        tab.assert_zeros()
    end = boards.log("end")[-1].last_event_id
    for proxy in proxies:
        Deadline(10).until(
            lambda proxy=proxy: [r.status for r in proxy.requests_for("/7?")] == [200, 204],
            lambda proxy=proxy: proxy.requests,
        )
        assert proxy.requests_for("/7?")[-1].last_event_id == end
    # The board's own, the plain one's two, and ten times the pause later no other.
    Deadline(10 * SOON / 1000).stays(
        lambda: [len(proxy.requests) for proxy in proxies] == [3, 3], lambda: proxies
    )
    for tab in tabs:
        assert tab.page.evaluate("plain.readyState === EventSource.CLOSED")


def test_a_page_of_an_ended_stream_begins_anew_with_it(
    boards: Boards, open_tabs: Callable[..., list[Tab]]
):
    boards.streams.send_event("anew", "before")
    tabs = open_tabs("anew")
    boards.streams.end_stream("anew")
    for tab in tabs:
        tab.wait_state("ended")

    tabs[0].page.click("#anew")

    for tab in tabs:
        tab.wait_state("open")
    last = boards.streams.send_event("anew", "after")
    for tab in tabs:
        tab.wait_newest(last)
        tab.assert_zeros()


@pytest.mark.parametrize("is_away", [False, True], ids=["open", "away"])
def test_a_history_that_is_gone_is_shown_as_one_reset(
    boards: Boards,
    open_tabs: Callable[..., list[Tab]],
    proxies: list[CuttingProxy],
    is_away: bool,
):
    stream_id = f"reset-{is_away}"
    tabs = open_tabs(stream_id)
    before = [boards.streams.send_event(stream_id, n, retry=SOON) for n in range(3)]
    for tab in tabs:
        tab.wait_newest(before[-1])
    if is_away:
        for proxy in proxies:
            proxy.is_shut = True
            proxy.cut()
        for tab in tabs:
            tab.wait_state("reconnecting")

    boards.lose_history(stream_id)
    after = [boards.streams.send_event(stream_id, n) for n in range(2)]
    for proxy in proxies:
        proxy.is_shut = False

    for tab in tabs:
        tab.wait_newest(after[-1])
        kinds = [kind for kind, _ in tab.rows()]
        assert kinds == [*["message"] * 3, "stream-reset", *["message"] * 2]
        assert [i for kind, i in tab.rows() if kind == "message"] == [*before, *after]
        told = tab.page.inner_text("[data-kind=stream-reset] .text")
        assert before[-1] in told
        assert tab.received() == 5
        tab.assert_zeros()


def test_a_browser_opens_six_streams_of_one_server_and_the_seventh_waits_and_misses_nothing(
    boards: Boards, context: Any, proxies: list[CuttingProxy]
):
    proxy = proxies[0]
    page = context.new_page()
    # No board: that would hold a connection, too.
    page.goto(f"{proxy.url}/board.css")
    page.evaluate(
        """() => {
            window.seen = Array.from({ length: 7 }, () => []);
            window.sources = seen.map((events, n) => {
                const source = new EventSource(`stream/${n}?stream=six`);
                source.onmessage = (event) => events.push(event.data);
                return source;
            });
        }"""
    )

    def states() -> list[int]:
        return sorted(page.evaluate("sources.map(source => source.readyState)"))

    Deadline(10).until(lambda: states() == [0, 1, 1, 1, 1, 1, 1], states)
    Deadline(0.5).stays(lambda: len(proxy.requests) == 6, lambda: proxy.requests)
    for n in range(2):
        boards.streams.send_event("six", f"{n}")
    received = "count => seen.filter(events => events.length === 2).length === count"
    page.wait_for_function(received, arg=6, timeout=10_000)
    page.evaluate("sources.find(source => source.readyState === EventSource.OPEN).close()")

    page.wait_for_function(received, arg=7, timeout=10_000)
    assert page.evaluate("seen") == [["0", "1"]] * 7
    assert len(proxy.requests) == 7
