"""The history reader: pages of logs, many in one round trip."""

from __future__ import annotations

from collections.abc import Sequence

import redis

from ..config import PAGE_BYTES, StreamConfig
from ..core.history import HistoryPage, HistoryRequest
from ..keys import Keys
from ..scripts import READ, Command, read_arguments, read_page

__all__ = ["HistoryReader"]


class HistoryReader:
    """Reads through a pool. One thread uses it."""

    def __init__(self, pool: redis.ConnectionPool, config: StreamConfig) -> None:
        self._redis = redis.Redis(connection_pool=pool)
        self._keys = Keys(config.prefix)

    def read(self, requests: Sequence[HistoryRequest]) -> list[HistoryPage | Exception]:
        """A page, or why there is none, for each request.

        Raises:
            redis.RedisError, OSError: Redis could not be asked at all.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for request in requests:
            pipeline.execute_command(*READ.by_sha(*self._call(request)))
        replies = pipeline.execute(raise_on_error=False)
        return [
            self._page(request, reply) for request, reply in zip(requests, replies, strict=True)
        ]

    def _page(self, request: HistoryRequest, reply: object) -> HistoryPage | Exception:
        if isinstance(reply, redis.exceptions.NoScriptError):
            try:
                reply = self._redis.execute_command(*READ.by_source(*self._call(request)))
            except redis.ResponseError as exc:
                return exc
        if isinstance(reply, Exception):
            return reply
        assert isinstance(reply, list)
        try:
            return read_page(reply)
        except ValueError as exc:
            return exc

    def _call(self, request: HistoryRequest) -> tuple[list[str], Command]:
        keys = [self._keys.log(request.key.stream_id)]
        return keys, read_arguments(request, most_bytes=PAGE_BYTES)
