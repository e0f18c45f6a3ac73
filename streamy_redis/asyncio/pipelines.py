"""Pipelines: the few connections that all senders of an event loop share.

Whoever finds a connection free takes along what waits, and hands out the replies; a sender alone
has its connection to itself. A far Redis is asked for hundreds of things in one round trip.

A task may be cancelled at any await. What is taken is given back without one, and a connection on
which a reply may be left is known by what was not noted before it was given back.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import redis
import redis.asyncio

from ..config import (
    BATCH_BYTES,
    BATCH_COMMANDS,
    LOOK_INTERVAL,
    SEND_CONNECTIONS,
    SLOW_PART,
    StreamConfig,
)
from ..connections import Busy, Interrupted, Shared, async_pool, async_sender_connection
from ..core.attempts import Attempts, attempt_timeout
from ..core.batch import BatchSize, move_batch, move_newest
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
        # Seconds that connecting may take, and then the exchange.
        self._timeout = attempt_timeout(config)
        new_pool = functools.partial(async_pool, source, connections=1, timeout=self._timeout)
        self._size = BatchSize(BATCH_COMMANDS, BATCH_BYTES, slow=SLOW_PART * self._timeout)
        lines = [_Line(new_pool, self._timeout, self._size) for _ in range(SEND_CONNECTIONS)]
        # The newest is the one that was used last, so that one sender alone has one connection.
        self._free = deque(lines)
        # What nobody has taken along yet.
        self._waiting: deque[_Question] = deque()
        self._is_closed = False

    async def ask(self, command: Command, attempts: Attempts) -> Any:
        """The reply to one command.

        Args:
            attempts: when it has to be under way and answered, on the clock of time.monotonic().

        Raises:
            Busy: it wasn't, since all connections were taken.
            Interrupted: whoever asked it was interrupted; it may have been carried out.
            Shared: all that went together failed; it may have been carried out.
            redis.RedisError, OSError
        """
        question = _Question(command)
        try:
            self._waiting.append(question)
            while True:
                await self._serve(attempts.deadline)
                reply = await question.wait(LOOK_INTERVAL)
                if reply is not _WAKE:
                    break
                self._check(question, attempts)
        finally:
            if not question.is_taken:
                self._withdraw(question)
                if self._free:
                    # It may have been the one that was woken.
                    self._wake_next()
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def close(self) -> None:
        """Closes the connections that are free; the others close when they come back."""
        self._is_closed = True
        await self._close_free()

    async def _close_free(self) -> None:
        lines: list[_Line] = []
        try:
            for _ in range(SEND_CONNECTIONS):
                move_newest(self._free, lines)
            for line in lines:
                await line.close()
        finally:
            self._free.extend(lines)
            self._wake_next()

    async def _serve(self, deadline: float) -> None:
        """Asks what waits, if a connection is free."""
        lines: list[_Line] = []
        batch: list[_Question] = []
        try:
            move_newest(self._free, lines)
            if lines:
                size = self._size
                move_batch(self._waiting, batch, most=size.most, most_bytes=size.most_bytes)
            if batch:
                await lines[0].ask(batch, deadline)
        finally:
            self._free.extend(lines)
            for question in batch:
                question.lose()
            if lines:
                self._wake_next()
            if lines and self._is_closed:
                await self._close_free()

    def _wake_next(self) -> None:
        try:
            self._waiting[0].wake()
        except IndexError:
            return

    def _check(self, question: _Question, attempts: Attempts) -> None:
        """Raises when there is nothing to wait for any more."""
        now = time.monotonic()
        if now > attempts.deadline and question.is_taken:
            # It may be under way still, but now there is no other try.
            raise Interrupted("no answer until send_timeout")
        if now > attempts.latest and self._withdraw(question):
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

    __slots__ = ("_is_answered", "_said", "command", "is_taken", "size")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.size = sum(len(part) for part in command if isinstance(part, bytes | str))
        # Whether a task took it along.
        self.is_taken = False
        self._is_answered = False
        self._said: asyncio.Queue[Any] = asyncio.Queue()

    def answer(self, reply: object) -> None:
        self._said.put_nowait(reply)
        self._is_answered = True

    def fail(self, error: Exception) -> None:
        """Nobody will answer it, unless somebody has."""
        if not self._is_answered:
            self.answer(error)

    def lose(self) -> None:
        self.fail(Interrupted("the task that asked was interrupted"))

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
    """One connection, made when it is needed. One task uses it.

    Args:
        timeout: seconds that connecting may take, and then the exchange.
    """

    def __init__(
        self, new_pool: Callable[[], redis.asyncio.ConnectionPool], timeout: float, size: BatchSize
    ) -> None:
        self._new_pool = new_pool
        self._timeout = timeout
        self._size = size
        self._connection: Any = None
        # Whether every reply has been read: what is left would answer the next command.
        self._is_clean = False

    async def ask(self, batch: list[_Question], deadline: float) -> None:
        """Asks them, and tells each its reply as soon as it is there.

        Args:
            deadline: when it has to be over; the connection is cut then.
        """
        for question in batch:
            question.is_taken = True
        errors: list[Exception] = []
        try:
            await self._connect(deadline)
            await self._exchange(batch, deadline)
        except (redis.RedisError, OSError) as exc:
            errors.append(exc)
        finally:
            if not self._is_clean:
                # Before anybody repeats what is on its way.
                await self.close()
        for error in errors:
            for question in batch:
                question.fail(error if len(batch) == 1 else Shared(copy.copy(error)))

    async def close(self) -> None:
        """Closes the connection; the next use makes another one."""
        self._is_clean = False
        if self._connection is not None:
            with anyio.CancelScope(shield=True):
                await self._connection.disconnect(nowait=True)

    async def _connect(self, deadline: float) -> None:
        if not self._is_clean:
            self._connection = async_sender_connection(self._new_pool())
        self._is_clean = False
        with self._limit(deadline):
            await self._connection.connect()
            if await is_stale(self._connection):
                await self._connection.disconnect(nowait=True)
                await self._connection.connect()

    async def _exchange(self, batch: list[_Question], deadline: float) -> None:
        start = time.monotonic()
        try:
            with self._limit(deadline):
                self._is_clean = await _ask(self._connection, batch)
        finally:
            self._size.note(time.monotonic() - start)

    @contextlib.contextmanager
    def _limit(self, deadline: float) -> Iterator[None]:
        left = min(self._timeout, deadline - time.monotonic())
        with anyio.move_on_after(left) as scope:
            yield
        if scope.cancelled_caught:
            raise redis.TimeoutError("Redis did not answer in time")


async def _ask(connection: Any, batch: list[_Question]) -> bool:
    """Whether the connection can be used again."""
    commands = connection.pack_commands([question.command for question in batch])
    await connection.send_packed_command([b"".join(commands)])
    is_writable = True
    for question in batch:
        try:
            reply = await connection.read_response()
        except redis.ResponseError as exc:
            reply = exc
        question.answer(reply)
        # A demoted master keeps its connections; the name leads to the new one.
        is_writable &= not isinstance(reply, redis.exceptions.ReadOnlyError)
    return is_writable


async def is_stale(connection: Any) -> bool:
    """Whether the server has closed it, or said something that nobody asked."""
    # The older name is deprecated since 8.0.
    look = getattr(connection, "can_read", None) or connection.can_read_destructive
    try:
        return bool(await look())
    except (redis.RedisError, OSError):
        return True
