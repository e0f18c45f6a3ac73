"""The browsers' own EventSource, where connections are cut: each resumes by itself."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from tests.deadline import Deadline
from tests.firefox import Firefox
from tests.nginx import in_front_of
from tests.proxy import ResettingProxy
from tests.sites import Site

pytestmark = pytest.mark.alone

CUTS = 5
LISTEN = """(() => {
    window.data = [];
    window.opens = 0;
    window.source = new EventSource(URL);
    source.onmessage = event => data.push(event.data);
    source.addEventListener("stream-open", () => opens++);
})()"""


@contextlib.contextmanager
def ways_to(site: Site) -> Iterator[Mapping[str, str]]:
    """Addresses of a site, by how its cuts arrive there: without the last chunk, or by a reset."""
    url = site.server.url
    with (
        ResettingProxy(site.server.port) as resetting,
        in_front_of(url, "1.0") as older,
        in_front_of(url, "1.1") as newer,
    ):
        yield {
            "itself": url,
            "resets": resetting.url,
            "nginx, HTTP/1.0": older.url,
            "nginx, HTTP/1.1": newer.url,
        }


def assert_loses_nothing(site: Site, pages: Mapping[str, Any], room: str) -> None:
    """Every page receives each event once and in order, however often it is cut."""
    path = site.server.stream_url("events", room).removeprefix(site.server.url)
    for page in pages.values():
        page.evaluate(LISTEN.replace("URL", json.dumps(path)))
    Deadline(10).until(lambda: all(page.evaluate("opens") for page in pages.values()))
    sent: list[str] = []

    def are_cut_often_enough() -> bool:
        sent.append(str(len(sent)))
        site.streams.send_event(room, sent[-1])
        return all(page.evaluate("opens") > CUTS for page in pages.values())

    Deadline(30).until(are_cut_often_enough, every=0.05)
    for way, page in pages.items():
        Deadline(10).until(
            lambda page=page: page.evaluate("data.length") >= len(sent), f"{way}: all has come"
        )
        assert page.evaluate("data") == sent, way


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "uvicorn"])
def test_chromium_loses_nothing_by_cuts(
    new_site: Callable[..., Site], context: Any, room: str, kind: str
):
    site = new_site(kind, max_lifetime=0.5)
    with ways_to(site) as urls:
        pages = {way: context.new_page() for way in urls}
        for way, url in urls.items():
            pages[way].goto(f"{url}/ping")

        assert_loses_nothing(site, pages, room)


def test_firefox_loses_nothing_by_cuts(new_site: Callable[..., Site], room: str):
    site = new_site("gunicorn-gthread", max_lifetime=0.5)
    with Firefox() as firefox, ways_to(site) as urls:
        pages = {way: firefox.open(f"{url}/ping") for way, url in urls.items()}

        assert_loses_nothing(site, pages, room)
