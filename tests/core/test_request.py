"""What the request for a stream says of where its client is."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from streamy_redis.core.publication import Position
from streamy_redis.core.request import cursor_of

OLD, NEW = "1795247419210110-1-98b83011", "1795247419210110-2-00000000"
JUNK = ["", "0", "$", "1-0", "nonsense", f"{NEW}x", "9" * 300, "\ufeff", "\x00"]


def test_a_newcomer_has_no_cursor():
    assert cursor_of(None, "") is None
    assert cursor_of(None, "replay=all&last_event_id=1") is None


def test_the_header_wins_over_the_address():
    assert cursor_of(NEW, f"lastEventId={OLD}") == Position.parse(NEW)


@pytest.mark.parametrize(
    "query",
    [f"lastEventId={NEW}", f"a=1&lastEventId={NEW}&b", f"lastEventId={NEW}".replace("-", "%2D")],
)
def test_the_address_is_decoded(query: str):
    assert cursor_of(None, query) == Position.parse(NEW)


@pytest.mark.parametrize("junk", JUNK)
def test_junk_is_as_if_there_was_none(junk: str):
    assert cursor_of(junk, f"lastEventId={quote(junk)}") is None
    assert cursor_of(junk, f"lastEventId={NEW}") == Position.parse(NEW)
    assert cursor_of(NEW, f"lastEventId={quote(junk)}") == Position.parse(NEW)


@pytest.mark.parametrize("junk", JUNK)
def test_of_several_the_last_event_id_counts(junk: str):
    """reconnecting-eventsource puts its own behind the page's; so does fetch in the header."""
    query = "&".join(f"lastEventId={quote(value)}" for value in (OLD, NEW, junk))

    assert cursor_of(None, query) == Position.parse(NEW)
    assert cursor_of(f"{OLD}, {NEW},{junk}", "") == Position.parse(NEW)


@pytest.mark.parametrize(
    "query", ["lasteventid=", "xlastEventId=", "lastEventId", "lastEventId%3D="]
)
def test_other_parameters_say_nothing(query: str):
    assert cursor_of(None, f"{query}{NEW}") is None


def test_bytes_that_are_no_text_do_no_harm():
    assert cursor_of("\xff", f"\xff=%ff&lastEventId=%ff&lastEventId={NEW}") == Position.parse(NEW)
