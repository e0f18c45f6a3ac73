"""Gaps: whether the log can still show everything after a cursor."""

from __future__ import annotations

import enum

from ..config import StreamConfig
from .history import HistoryPage
from .publication import NO_TAG, Position

__all__ = ["Gap", "cursor_ttl_of", "find_gap"]


class Gap(enum.StrEnum):
    """Why events can't be shown; the ``reason`` of a reset."""

    # Older events were dropped: the history is bounded.
    TRIMMED = "trimmed"
    # Another event stands at the cursor: a failover rolled the history back.
    REWRITTEN = "rewritten"
    # Another life of the stream has begun: it was deleted, flushed or forgotten in between.
    REPLACED = "replaced"
    # There is no history any more.
    LOST = "lost"
    # The cursor is newer than the log: a failover rolled the history back.
    AHEAD = "ahead"
    # The cursor was made before the first event, so long ago that a whole life may have passed.
    EXPIRED = "expired"


def cursor_ttl_of(config: StreamConfig) -> float:
    """Seconds within which no life of a stream can come and go unseen."""
    return min(config.history_ttl, config.ended_ttl)


def find_gap(cursor: Position, page: HistoryPage, *, cursor_ttl: float) -> Gap | None:
    """Whether the cursor itself still holds, by the page that was read after it.

    None means that the log does not contradict the cursor; a hole behind it (TRIMMED) shows
    between the runs. Any other gap means that the cursor's past is not the log's: then the whole
    log is news.

    Args:
        cursor_ttl: seconds that a cursor from before the first event may be old.
    """
    if page.at_cursor is not None:
        return None if cursor.tag in (NO_TAG, page.at_cursor) else Gap.REWRITTEN
    if not page.runs:
        return _gap_without_entries(cursor, page, cursor_ttl)
    run = page.runs[0]
    if run.first.epoch == cursor.epoch:
        # Where just the cursor's own entry was trimmed, its successor remembers its tag.
        is_successor = run.first.follows(cursor) and cursor.tag != NO_TAG
        return Gap.REWRITTEN if is_successor and cursor.tag != run.previous else None
    if not cursor.is_start:
        return Gap.REPLACED
    return _gap_since_start(cursor, page, cursor_ttl)


def _gap_without_entries(cursor: Position, page: HistoryPage, cursor_ttl: float) -> Gap | None:
    if cursor[:2] in (page.generated, page.top[:2]):
        # The cursor's own entry, the last there ever was, was trimmed or deleted; or it stands
        # where the log has been given up.
        return None
    if not page.top.is_start:
        return Gap.AHEAD
    return _gap_since_start(cursor, page, cursor_ttl) if cursor.is_start else Gap.LOST


def _gap_since_start(cursor: Position, page: HistoryPage, cursor_ttl: float) -> Gap | None:
    if page.top.is_start and cursor.epoch > page.top.epoch:
        return Gap.AHEAD
    if page.generated is not None and not page.runs and page.generated[0] >= cursor.epoch:
        # A life began since, and all of it was trimmed or deleted.
        return Gap.LOST
    return Gap.EXPIRED if (page.clock - cursor.epoch) / 1e6 > cursor_ttl else None
