"""The listener: owner of the one Pub/Sub connection, and of what drives this event loop's hub.

Three tasks, each supervised: one hears the channels, one reads the log, one keeps time. Only the
first two wait for Redis. The hub is changed between two awaits, never across one.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
import time
from collections.abc import Awaitable, Callable

import anyio
import redis
import redis.asyncio

from ..channels import ChannelTable, Message
from ..config import (
    PONG_TIMEOUT,
    READ_TIMEOUT,
    TICK_INTERVAL,
    StreamConfig,
)
from ..connections import async_listener_connection, explained, is_lasting, without_arguments
from ..core.descriptors import Descriptors
from ..core.history import HistoryPage, HistoryRequest
from ..core.hub import Commands, Hub
from ..core.link import Link
from ..core.outbox import Failure
from ..core.subscriber import CloseReason, Outgoing, Subscriber
from ..core.witness import Witnesses
from ..keys import Keys
from ..servers.connection import Connection
from ..servers.descriptors import seen
from ..servers.watch import ServerWatch
from ..tally import Tally
from .history import HistoryReader
from .wire import Wire, open_wire

__all__ = ["Listener"]

_log = logging.getLogger("streamy_redis.listener")

# Streams of which is kept that they can't be read; those beyond wait as if Redis were away.
_MOST_HOPELESS = 1000


class Listener:
    """This event loop's subscribers, and the tasks that feed them; started by the first one."""

    def __init__(
        self,
        pool: redis.asyncio.ConnectionPool,
        config: StreamConfig,
        tally: Tally,
        witnesses: Witnesses,
    ) -> None:
        self._pool = pool
        self._table = ChannelTable(Keys(config.prefix))
        self._hub = Hub.of(config, witnesses)
        self._tally = tally
        self._history = HistoryReader(pool, config)
        self._task: asyncio.Task[None] | None = None
        # What the ticker does when nobody reads any more.
        self._close: Callable[[], object] | None = None
        self._is_closing = False
        self._server: ServerWatch | None = None
        self._has_requests = anyio.Event()
        # While connected.
        self._channels: _Channels | None = None
        self._is_flushing = False
        self._link = Link()
        # Why a page of the last batch could not be read.
        self._unreadable: Exception | None = None
        # Of streams whose history this server will never show: why.
        self._hopeless: dict[str, Exception] = {}
        self._has_told_hopeless = False
        self._has_told_shortage = False

    # What streams ask

    @property
    def is_away(self) -> bool:
        """Whether Redis is known to be away."""
        return self._link.error is not None

    @property
    def trouble(self) -> Exception | None:
        """What Redis said, or why it said nothing, where something doesn't work."""
        return self._link.error or self._unreadable or self._table.refusal

    def lasting_trouble(self, stream_id: str) -> Exception | None:
        """Why it is of no use to wait for this stream, if that is known."""
        error = self._link.error
        return error if is_lasting(error) else self._hopeless.get(stream_id)

    def add(self, subscriber: Subscriber, connection: Connection | None = None) -> bool:
        """Registers a subscriber; False if there are too many.

        Args:
            connection: of the request that it answers.
        """
        self._start()
        now = time.monotonic()
        if connection is not None:
            subscriber.server = self.watch_server().server_of(connection)
            self._follow_servers(now)
        descriptors = seen() if subscriber.is_response else None
        is_added = self._hub.add(subscriber, now, descriptors)
        if self.watch_server().has_stopped(subscriber.server):
            self._hub.close_those_of(subscriber.server, now)
        if not is_added:
            self._warn_of_shortage(descriptors)
        self.drain()
        return is_added

    def _warn_of_shortage(self, descriptors: Descriptors | None) -> None:
        """Tells it once, where that is why a response was refused."""
        if descriptors is not None and descriptors.are_short and not self._has_told_shortage:
            self._has_told_shortage = True
            _log.warning(
                "%d of %d descriptors are open: streams are answered 503 until some are free; "
                "raise the limit, as with ulimit -n or LimitNOFILE=",
                descriptors.open,
                descriptors.limit,
            )

    def take(self, subscriber: Subscriber) -> Outgoing:
        """What is to be written now; taking again says that it was written."""
        outgoing = self._hub.take(subscriber, time.monotonic())
        if self._hub.has_requests:
            self._has_requests.set()
        return outgoing

    def remove(self, subscriber: Subscriber) -> None:
        """Its client has left. Repeating it is harmless."""
        self._hopeless.pop(subscriber.stream_id, None)
        self._hub.remove(subscriber, CloseReason.DISCONNECT, time.monotonic())
        self.drain()

    def wake(self, subscriber: Subscriber) -> None:
        """Its writer is to look what there is to take."""
        self._hub.wake(subscriber)
        self.drain()

    def give_up(self, close: Callable[[], object]) -> None:
        """Nobody adds more: calls close once nobody reads."""
        self._close = close
        self._close_unused()

    def _close_unused(self) -> None:
        if self._close is not None and not self._hub.has_subscribers:
            # Once: another time it would interrupt the first.
            close, self._close = self._close, None
            close()

    async def close(self) -> None:
        """Ends all responses and tasks, and closes the connection."""
        self._is_closing = True
        self._hub.close(time.monotonic())
        self.drain()
        task, self._task = self._task, None
        if task is not None and task is not asyncio.current_task():
            task.cancel()
            await asyncio.wait([task])
        await self._history.close()
        self.settle()

    def settle(self) -> None:
        """Nothing more is counted. Repeating it is harmless."""
        self._tally.settle(self._hub.stats)

    def watch_server(self) -> ServerWatch:
        """Watches for the server's shutdown, which may come before the first stream."""
        if self._server is None:
            self._server = ServerWatch()
        return self._server

    def _follow_servers(self, now: float) -> None:
        """Ends what stopping servers wait for; where others serve, all goes on."""
        watch = self.watch_server()
        for server in watch.stopped():
            self._hub.close_those_of(server, now)
        if watch.is_stopping():
            self._hub.close(now)
        elif not self._is_closing:
            self._hub.reopen()

    # Tasks

    def _start(self) -> None:
        """Starts the tasks, once."""
        if self._task is None and not self._is_closing:
            self.watch_server()
            self._tally.add(self._hub.stats)
            # Not in the context of the request that happens to be the first.
            self._task = asyncio.get_running_loop().create_task(
                self._run(), name="streamy-redis-listener", context=contextvars.Context()
            )

    async def _run(self) -> None:
        async with anyio.create_task_group() as tasks:
            for name, loop in (
                ("listener", self._listen),
                ("history", self._read_history),
                ("ticker", self._tick),
            ):
                tasks.start_soon(self._supervise, name, loop, name=f"streamy-redis-{name}")

    async def _supervise(self, name: str, loop: Callable[[], Awaitable[None]]) -> None:
        while not self._is_closing:
            try:
                await loop()
            except BaseException as exc:
                # Whoever throws a CancelledError without having cancelled us only fails.
                if _is_cancelled():
                    raise
                _log.exception("the %s task failed; it is started again", name)
                if isinstance(exc, KeyboardInterrupt | SystemExit):
                    # Aimed at the process: the loop raises it, and may go on.
                    asyncio.get_running_loop().call_soon(_raise, exc)
                await anyio.sleep(1.0)

    async def _tick(self) -> None:
        while True:
            await anyio.sleep(TICK_INTERVAL)
            now = time.monotonic()
            self._follow_servers(now)
            self._hub.tick(now)
            self.drain()
            self._tally.update()
            self._close_unused()

    def drain(self) -> None:
        """Passes on what the hub has decided."""
        # A write that comes back here finds that the rest is seen to already.
        while self._hub.has_writes and not self._is_flushing:
            self._is_flushing = True
            try:
                self._flush()
            finally:
                self._is_flushing = False
        if self._hub.has_requests:
            self._has_requests.set()
        if self._hub.has_commands and self._channels is not None:
            self._channels.send(self._hub.commands_to_send())

    def _flush(self) -> None:
        outbox = self._hub.outbox_to_write()
        ends = self._hub.ends_to_tell()
        sent = self._hub.times_to_tell()
        outbox.write()
        if outbox.has_news:
            self._tell(self._hub.receive_written(time.monotonic()))
        for stream_id, reason in ends:
            _log.debug("a response of %r ended: %s", stream_id, reason)
        if sent:
            self._tally.written(sent)

    def _tell(self, failures: list[Failure]) -> None:
        """Logs them, but for what was aimed at the process: the loop raises that, not a task."""
        for failure in failures:
            if isinstance(failure.error, KeyboardInterrupt | SystemExit):
                asyncio.get_running_loop().call_soon(_raise, failure.error)
            else:
                _log.error(
                    "a response of %r can't be written to and is cut",
                    failure.stream_id,
                    exc_info=failure.error,
                )

    # The log

    async def _read_history(self) -> None:
        while True:
            await self._has_requests.wait()
            self._has_requests = anyio.Event()
            while self._hub.has_requests:
                requests = self._hub.requests_to_send()
                if requests:
                    await self._read_batch(requests)

    async def _read_batch(self, requests: list[HistoryRequest]) -> None:
        pages: list[HistoryPage | Exception]
        asked_at = time.monotonic()
        lost: Exception | None = None
        try:
            pages = await self._history.read(requests)
        except Exception as exc:
            # Whatever it was: a request without an answer would keep its stream waiting for ever.
            pages, lost = [], exc
        except BaseException:
            # For whoever supervises.
            self._ask_again(requests, asked_at)
            raise
        if len(pages) < len(requests):
            lost = lost or redis.TimeoutError("Redis did not answer in time")
            pages += [lost] * (len(requests) - len(pages))
        now = time.monotonic()
        self._hub.batch_done(now - asked_at, is_whole=lost is None)
        for request, page in zip(requests, pages, strict=True):
            try:
                self._receive_page(request, page, now, asked_at)
            except Exception:
                # The others in this batch have been asked for as well.
                _log.exception("a page of %r can't be shown", request.key.stream_id)
                self._hub.history_failed(request, now)
        self._unreadable = next((page for page in pages if isinstance(page, Exception)), None)
        self.drain()

    def _ask_again(self, requests: list[HistoryRequest], asked_at: float) -> None:
        now = time.monotonic()
        self._hub.batch_done(now - asked_at, is_whole=False)
        for request in requests:
            self._hub.history_failed(request, now)

    def _receive_page(
        self, request: HistoryRequest, page: HistoryPage | Exception, now: float, asked_at: float
    ) -> None:
        if isinstance(page, HistoryPage):
            self._hopeless.pop(request.key.stream_id, None)
            self._hub.receive_history(request, page, now, asked_at=asked_at)
            if page.has_foreign:
                self._table.skip_foreign(f"entry in the log of {request.key.stream_id!r}")
        else:
            self._log_unreadable(request.key.stream_id, page)
            self._hub.history_failed(request, now)

    def _log_unreadable(self, stream_id: str, error: Exception) -> None:
        has_told = self._unreadable is not None
        if is_lasting(error):
            # Other streams of the same server may be readable, again and again in between.
            has_told, self._has_told_hopeless = self._has_told_hopeless, True
            if len(self._hopeless) < _MOST_HOPELESS:
                self._hopeless[stream_id] = error
        if not has_told:
            self._unreadable = error
            told = explained(error)
            _log.warning("a history (%r) can't be read and is tried again: %s", stream_id, told)

    # The channels

    async def _listen(self) -> None:
        while True:
            channels = _Channels(self._pool, self._table, self._link, self._hear)
            try:
                with anyio.fail_after(READ_TIMEOUT):
                    await channels.connect()
                await self._converse(channels)
            except* (redis.RedisError, OSError) as lost:
                self._tell_loss(lost.exceptions[0])
            finally:
                self._channels = None
                self._hub.connection_lost()
                with anyio.CancelScope(shield=True):
                    await channels.close()
            pause = self._link.pause(time.monotonic(), random.random())
            await anyio.sleep(pause)

    async def _converse(self, channels: _Channels) -> None:
        """Hears the channels until the connection is lost."""
        self._channels = channels
        self._hub.connection_made(time.monotonic())
        self.drain()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(channels.serve)
            tasks.start_soon(channels.watch)

    def _tell_loss(self, error: Exception) -> None:
        is_news = self._link.lost(without_arguments(error))
        if is_news and not self._is_closing:
            _log.warning(
                "the Pub/Sub connection is lost and will be made anew: %s", explained(error)
            )

    def _hear(self, messages: list[Message]) -> None:
        now = time.monotonic()
        for stream_id, publication in messages:
            if publication is None:
                self._hub.receive_subscribed(stream_id)
            else:
                self._hub.receive_publication(stream_id, publication, now)
        self.drain()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _raise(error: BaseException) -> None:
    raise error


class _Channels:
    """One Pub/Sub connection.

    Args:
        link: of its server.
        hear: called with the messages, maybe none, in what has come together.
    """

    def __init__(
        self,
        pool: redis.asyncio.ConnectionPool,
        table: ChannelTable,
        link: Link,
        hear: Callable[[list[Message]], None],
    ) -> None:
        self._connection = async_listener_connection(pool)
        self._table = table
        self._link = link
        self._hear = hear
        self._wire: Wire | None = None
        link.begun()

    async def connect(self) -> None:
        await self._connection.connect()
        self._wire = open_wire(self._connection, self._receive)
        self._link.made(time.monotonic())

    async def close(self) -> None:
        await self._connection.disconnect(nowait=True)

    def _note_heard(self) -> None:
        if self._link.heard(time.monotonic()):
            _log.info("the Pub/Sub connection is back")

    def send(self, commands: Commands) -> None:
        """Subscribes and unsubscribes; the acknowledgements come as messages."""
        packed = self._table.pack(commands)
        if packed:
            self._send(*packed)

    def _send(self, *commands: tuple[str, ...]) -> None:
        assert self._wire is not None
        self._wire.send(self._connection.pack_commands(commands))

    async def serve(self) -> None:
        """Hears what comes.

        Raises:
            redis.ConnectionError, OSError: the connection is lost.
        """
        assert self._wire is not None
        await self._wire.serve()

    def _receive(self, replies: list[object]) -> None:
        self._note_heard()
        self._hear(self._table.read(replies))

    async def watch(self) -> None:
        """Asks after a silence.

        Raises:
            redis.TimeoutError: it was asked, and is silent still.
        """
        while True:
            await anyio.sleep(PONG_TIMEOUT / 2)
            now = time.monotonic()
            if self._link.is_silent(now):
                raise redis.TimeoutError(f"no answer to PING for {PONG_TIMEOUT} s")
            if self._link.must_ping(now):
                self._send(("PING",))
