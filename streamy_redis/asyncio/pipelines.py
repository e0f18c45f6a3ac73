"""Pipelines: the few connections that all senders of an event loop share.

Whoever finds a connection free takes along what waits, and hands out the replies; a sender alone
has its connection to itself. A far Redis is asked for hundreds of things in one round trip.

A task may be cancelled at any await. What is taken is given back without one, and a connection on
which a reply may be left is known by what was not noted before it was given back.
"""

from __future__ import annotations

import asyncio
import copy
import functools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio
import redis
import redis.asyncio

from ..config import BATCH_BYTES, BATCH_COMMANDS, LOOK_INTERVAL, SEND_CONNECTIONS, StreamConfig
from ..connections import Busy, Interrupted, async_pool
from ..core.batch import move_batch, move_newest
from ..scripts import Command

__all__ = ["Pipelines"]

# What is put to a question so that its task looks whether it can go ahead.
_WAKE = object()


class Pipelines:
    """A bounded number of connections. Belongs to one event loop.

    Args:
        source: of the connections, a URL or a client.
    """

    def __init__(self, source: str | redis.asyncio.Redis, config: StreamConfig) -> None:
        new_pool = functools.partial(
            async_pool, source, connections=1, timeout=config.attempt_timeout
        )
        self._lines = [_Line(new_pool) for _ in range(SEND_CONNECTIONS)]
        # Seconds after which what was asked is lost, whoever asked it.
        self._timeout = 2 * config.attempt_timeout
        # The newest is the one that was used last, so that one sender alone has one connection.
        self._free = deque(self._lines)
        # What nobody has taken along yet.
        self._waiting: deque[_Question] = deque()
        self._is_closed = False

    async def ask(self, command: Command, *, latest: float) -> Any:
        """The reply to one command.

        Args:
            latest: when it has to be under way, on the clock of time.monotonic().

        Raises:
            Busy: it wasn't, since all connections were taken.
            Interrupted: whoever asked it was interrupted; it may have been carried out.
            redis.RedisError, OSError
        """
        question = _Question(command)
        try:
            self._waiting.append(question)
            while True:
                await self._serve()
                reply = await question.wait(LOOK_INTERVAL)
                if reply is not _WAKE:
                    break
                self._check(question, latest)
        finally:
            if question.taken_at is None and self._withdraw(question) and self._free:
                # It may have been the one that was woken.
                self._wake_next()
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def close(self) -> None:
        """Closes the connections. What comes after this, or outlives it, closes its own."""
        self._is_closed = True
        for line in self._lines:
            await line.close()

    async def _serve(self) -> None:
        """Asks what waits, if a connection is free."""
        lines: list[_Line] = []
        batch: list[_Question] = []
        try:
            move_newest(self._free, lines)
            if lines:
                move_batch(self._waiting, batch, most=BATCH_COMMANDS, most_bytes=BATCH_BYTES)
            if batch:
                await lines[0].ask(batch)
        finally:
            self._free.extend(lines)
            for question in batch:
                question.lose()
            if lines:
                self._wake_next()
            if self._is_closed:
                await self.close()

    def _wake_next(self) -> None:
        try:
            self._waiting[0].wake()
        except IndexError:
            return

    def _check(self, question: _Question, latest: float) -> None:
        """Raises when there is nothing to wait for any more."""
        now = time.monotonic()
        if question.taken_at is not None:
            if now - question.taken_at > self._timeout:
                raise Interrupted("no answer in time")
        elif now > latest and self._withdraw(question):
            raise Busy("all connections were busy until send_timeout")

    def _withdraw(self, question: _Question) -> bool:
        """Whether nobody has taken it along, and will."""
        try:
            self._waiting.remove(question)
        except ValueError:
            return False
        return True


class _Question:
    """A command, and what is said to the task that waits for its reply."""

    __slots__ = ("_is_answered", "_said", "command", "size", "taken_at")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.size = sum(len(part) for part in command if isinstance(part, bytes | str))
        # When a task took it along.
        self.taken_at: float | None = None
        self._is_answered = False
        self._said: asyncio.Queue[Any] = asyncio.Queue()

    def answer(self, reply: object) -> None:
        self._said.put_nowait(reply)
        self._is_answered = True

    def lose(self) -> None:
        """Nobody will answer it, unless somebody has."""
        if not self._is_answered:
            self.answer(Interrupted("the task that asked was interrupted"))

    def wake(self) -> None:
        self._said.put_nowait(_WAKE)

    async def wait(self, seconds: float) -> Any:
        """The reply, or _WAKE when it is time to look again."""
        if not self._said.empty():
            return self._said.get_nowait()
        with anyio.move_on_after(seconds):
            return await self._said.get()
        return _WAKE


class _Line:
    """One connection, made when it is needed. One task uses it."""

    def __init__(self, new_pool: Callable[[], redis.asyncio.ConnectionPool]) -> None:
        self._new_pool = new_pool
        self._client: redis.asyncio.Redis | None = None
        # Whether every reply has been read: what is left would answer the next command.
        self._is_clean = False

    async def ask(self, batch: list[_Question]) -> None:
        """Asks them, and tells each its reply."""
        for question in batch:
            question.taken_at = time.monotonic()
        try:
            replies = await self._exchange([question.command for question in batch])
        finally:
            if not self._is_clean:
                # Before anybody repeats what is on its way.
                await self.close()
        for question, reply in zip(batch, replies, strict=True):
            question.answer(reply)

    async def close(self) -> None:
        """Closes the connection; the next use makes another one."""
        if self._client is not None:
            with anyio.CancelScope(shield=True):
                await self._client.connection_pool.disconnect()

    async def _exchange(self, commands: list[Command]) -> list[Any]:
        client = self._ready_client()
        self._is_clean = False
        try:
            replies = await _replies(client, commands)
        except (redis.RedisError, OSError) as exc:
            return [exc, *(copy.copy(exc) for _ in commands[1:])]
        # A demoted master keeps its connections; the name leads to the new one.
        self._is_clean = not any(
            isinstance(reply, redis.exceptions.ReadOnlyError) for reply in replies
        )
        return replies

    def _ready_client(self) -> redis.asyncio.Redis:
        if self._client is None or not self._is_clean:
            self._client = redis.asyncio.Redis(connection_pool=self._new_pool())
        return self._client


async def _replies(client: redis.asyncio.Redis, commands: list[Command]) -> list[Any]:
    if len(commands) > 1:
        pipeline = client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return await pipeline.execute(raise_on_error=False)
    try:
        return [await client.execute_command(*commands[0])]
    except redis.ResponseError as exc:
        return [exc]
