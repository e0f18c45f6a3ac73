"""The history reader: pages of logs, many in one round trip."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import anyio
import redis
import redis.asyncio

from ..config import StreamConfig
from ..connections import async_sender_connection
from ..core.history import HistoryPage, HistoryRequest
from ..keys import Keys
from ..scripts import Command, ask_otherwise, read_commands, read_page
from .pipelines import is_stale

__all__ = ["HistoryReader"]


class HistoryReader:
    """Reads through a connection of its own, made when it is needed. Belongs to one loop.

    Args:
        pool: of whose kind that connection is.
    """

    def __init__(self, pool: redis.asyncio.ConnectionPool, config: StreamConfig) -> None:
        self._pool = pool
        self._keys = Keys(config.prefix)
        self._connection: Any = None
        # Whether every reply on it has been read: what is left would answer the next request.
        self._is_clean = False

    async def read(self, requests: Sequence[HistoryRequest]) -> list[HistoryPage | Exception]:
        """A page, or why Redis gives none, for each request that was answered, in their order.

        These are fewer than the requests if the answers to others came too late, or if the
        connection was lost meanwhile.

        Raises:
            redis.RedisError, OSError: nothing was answered.
        """
        pages = await self._exchange(requests, [self._commands(request) for request in requests])
        again = {
            i: otherwise
            for i, page in enumerate(pages)
            if isinstance(page, Exception) and (otherwise := ask_otherwise(requests[i], page))
        }
        if again:
            others = list(again.values())
            # The first of them brings the script along, which a server may not know any more.
            commands = [self._commands(each, by_source=each is others[0]) for each in others]
            answers = await self._exchange(others, commands)
            for i, page in zip(again, answers, strict=False):
                pages[i] = page
        return pages

    async def close(self) -> None:
        """Closes the connection; the next use makes another one."""
        self._is_clean = False
        if self._connection is not None:
            with anyio.CancelScope(shield=True):
                await self._connection.disconnect(nowait=True)

    async def _exchange(
        self, requests: Sequence[HistoryRequest], commands: list[list[Command]]
    ) -> list[HistoryPage | Exception]:
        pages: list[HistoryPage | Exception] = []
        try:
            await self._connect()
            packed = self._connection.pack_commands(itertools.chain.from_iterable(commands))
            await self._connection.send_packed_command([b"".join(packed)])
            for request, asked in zip(requests, commands, strict=True):
                replies = [await self._reply() for _ in asked]
                pages.append(_page(request, replies))
            self._is_clean = True
        except (redis.RedisError, OSError):
            if not pages:
                raise
        finally:
            if not self._is_clean:
                await self.close()
        return pages

    async def _connect(self) -> None:
        if not self._is_clean:
            self._connection = async_sender_connection(self._pool)
        self._is_clean = False
        await self._connection.connect()
        if await is_stale(self._connection):
            await self._connection.disconnect(nowait=True)
            await self._connection.connect()

    async def _reply(self) -> object:
        try:
            return await self._connection.read_response()
        except redis.ResponseError as exc:
            return exc

    def _commands(self, request: HistoryRequest, *, by_source: bool = False) -> list[Command]:
        log = self._keys.log(request.key.stream_id)
        return read_commands(log, request, by_source=by_source)


def _page(request: HistoryRequest, replies: list[object]) -> HistoryPage | Exception:
    try:
        return read_page(request, replies)
    except (redis.ResponseError, ValueError) as exc:
        return exc
