"""The listener: owner of the one Pub/Sub connection, and of what drives this process's hub.

Three threads, each supervised: one hears the channels, one reads the log, one keeps time. Only
the first two wait for Redis; the hub is changed under one lock, in which nothing waits.
"""

from __future__ import annotations

import atexit
import functools
import logging
import os
import random
import socket
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable

import redis

from ..channels import ChannelTable, Message
from ..config import (
    EXIT_TIMEOUT,
    PONG_TIMEOUT,
    READ_TIMEOUT,
    TICK_INTERVAL,
    StreamConfig,
)
from ..connections import explained, is_lasting, listener_connection, without_arguments
from ..core.descriptors import Descriptors
from ..core.history import HistoryPage, HistoryRequest
from ..core.hub import Commands, Hub
from ..core.link import Link
from ..core.outbox import Failure
from ..core.subscriber import CloseReason, Outgoing, Subscriber
from ..core.witness import Witnesses
from ..forks import do_in_each_fork
from ..keys import Keys
from ..servers.descriptors import seen
from ..servers.watch import ServerWatch
from ..tally import Tally
from .handover import ResponseHead, Sockets, SocketWriter, TakenSocket, closed_connection
from .history import HistoryReader
from .wakeup import WakeUp, do_elsewhere, take_turn
from .wire import Wire, open_wire

__all__ = ["Listener"]

_log = logging.getLogger("streamy_redis.listener")

# Streams of which is kept that they can't be read; those beyond wait as if Redis were away.
_MOST_HOPELESS = 1000


class Listener:
    """This process's subscribers, and the threads that feed them; started by the first one."""

    def __init__(
        self,
        pool: redis.ConnectionPool,
        config: StreamConfig,
        tally: Tally,
        witnesses: Witnesses,
    ) -> None:
        self._pool = pool
        self._table = ChannelTable(Keys(config.prefix))
        self._hub = Hub.of(config, witnesses)
        self._tally = tally
        self._lock = threading.Lock()
        # Held by the one thread that writes what the hub drains, so that each client gets it in
        # order; taken before the hub's lock.
        self.flushing = threading.Lock()
        # Who comes and goes without a wait: readers inside this process, whose threads may be
        # interrupted anywhere, and those whose responses were dropped without a word. For the
        # ticker, to which nobody throws anything.
        self._arrived: deque[Subscriber] = deque()
        self._forgotten: deque[Subscriber] = deque()
        self._has_moved = WakeUp()
        # What the ticker does when nobody reads any more.
        self._close: Callable[[], None] | None = None
        # Made by the first response that is handed over.
        self._sockets: Sockets | None = None
        self._history = HistoryReader(pool, config)
        self._threads: list[threading.Thread] = []
        self._has_started = False
        self._closing = WakeUp()
        self._has_requests = WakeUp()
        # While connected.
        self._channels: _Channels | None = None
        self._link = Link()
        self._has_told = False
        self._has_warned = False
        self._server: ServerWatch | None = None
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

    @property
    def has_subscribers(self) -> bool:
        """Whether anybody reads in this process."""
        with self._lock:
            self._let_come_and_go(time.monotonic())
            return self._hub.has_subscribers

    def add(self, subscriber: Subscriber, port: int | None = None) -> bool:
        """Registers a subscriber; False if there are too many.

        Args:
            port: where the request came to that it answers.
        """
        with self._lock:
            self._start()
            now = time.monotonic()
            if port is not None:
                subscriber.server = self._watch_server().server_at(port)
                self._follow_servers(now)
            descriptors = seen() if subscriber.is_response else None
            is_added = self._hub.add(subscriber, now, descriptors)
            if self._watch_server().has_stopped(subscriber.server):
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

    def refuse(self, subscriber: Subscriber) -> None:
        """There is no descriptor for a response that was registered."""
        with self._lock:
            self._hub.refuse(subscriber, time.monotonic())
        self.drain()

    def add_soon(self, subscriber: Subscriber) -> None:
        """The same for a reader inside this process, of whom there are never too many.

        Where the caller is interrupted, it is still to be forgotten.
        """
        if not self._has_started:
            # In this thread, which may be the main one: there it sees the signals.
            self._watch_server()
            do_elsewhere("start", self._start_undisturbed)
        self._arrived.append(subscriber)
        self._has_moved.set()
        if self._closing.is_set():
            # Too late for the ticker.
            with self._lock:
                self._let_come_and_go(time.monotonic())

    def prepare_handover(self, connection: socket.socket, body_size: int) -> TakenSocket:
        """What hand_over() takes, of the socket of a request. Nothing has changed yet.

        Args:
            body_size: of that request, in bytes.

        Raises:
            OSError, RuntimeError: the process has no descriptor or thread left.
        """
        with self.flushing:
            self._serve_sockets()
        self.drain()
        return TakenSocket(connection, body_size, closed_connection())

    def hand_over(
        self,
        subscriber: Subscriber,
        taken: TakenSocket,
        head: ResponseHead,
        on_end: Callable[[], None],
    ) -> None:
        """From now on the subscriber's frames go to a socket that its worker gives up.

        Args:
            head: of the HTTP response.
            on_end: called when the response has ended, by a thread that must not wait.

        Raises:
            OSError, RuntimeError: the kernel, or this process's end, don't allow it; nothing has
                changed.
        """
        try:
            with self.flushing:
                sockets = self._serve_sockets()
                writer = SocketWriter(taken, head, subscriber, self, sockets, on_end)
                sockets.add(writer)
                try:
                    with self._lock:
                        # From here on nothing waits that could be interrupted.
                        taken.take(subscriber.user_timeout)
                        subscriber.writer = writer
                        self._hub.wake(subscriber)
                except BaseException:
                    sockets.forget(writer)
                    raise
        finally:
            # Others may have waited for the right to write.
            self.drain()

    def _serve_sockets(self) -> Sockets:
        if self._sockets is None:
            sockets = Sockets(self)
            self._start_thread("sockets", sockets.serve)
            self._sockets = sockets
            atexit.register(self._end_with_process, os.getpid())
        return self._sockets

    def _end_with_process(self, pid: int) -> None:
        """Ends what a worker that is done knows nothing of: responses that were handed over."""
        # A fork has inherited this as well.
        if pid == os.getpid():
            with self._lock:
                self._hub.close(time.monotonic())
            # Nobody may be writing who would not come to an end any more.
            if self.flushing.acquire(timeout=EXIT_TIMEOUT):
                try:
                    while self._hub.has_writes:
                        self._flush()
                finally:
                    self.flushing.release()

    def fail(self, subscriber: Subscriber, error: BaseException) -> None:
        """Its writer raised: it is cut at the next drain. Whoever calls it holds `flushing`."""
        self._hub.outbox.fail(subscriber, error)

    def take(self, subscriber: Subscriber) -> Outgoing:
        """What is to be written now; taking again says that it was written."""
        with self._lock:
            outgoing = self._hub.take(subscriber, time.monotonic())
            has_requests = self._hub.has_requests
        if has_requests:
            self._has_requests.set()
        return outgoing

    def remove(self, subscriber: Subscriber) -> None:
        """Its client has left. Repeating it is harmless."""
        self._hopeless.pop(subscriber.stream_id, None)
        with self._lock:
            self._hub.remove(subscriber, CloseReason.DISCONNECT, time.monotonic())
        self.drain()

    def forget(self, subscriber: Subscriber) -> None:
        """The same, soon, from a finalizer too, which may run in the middle of anything."""
        self._forgotten.append(subscriber)
        self._has_moved.set()

    def _let_come_and_go(self, now: float) -> None:
        """Under the lock."""
        while self._arrived:
            self._hub.add(self._arrived.popleft(), now)
        while self._forgotten:
            self._hub.remove(self._forgotten.popleft(), CloseReason.DISCONNECT, now)

    def give_up(self, close: Callable[[], None]) -> None:
        """Nobody adds more: calls close once nobody reads. From a finalizer."""
        self._close = close
        if self._has_started:
            self._has_moved.set()
        else:
            do_elsewhere("close", close)

    def close(self) -> None:
        """Ends all responses and threads, and closes the connection."""
        self._closing.set()
        _started.discard(self)
        atexit.unregister(self._end_with_process)
        with self._lock:
            now = time.monotonic()
            self._let_come_and_go(now)
            self._hub.close(now)
            threads, self._threads = self._threads, []
        self.drain()
        self._has_moved.set()
        self._has_requests.set()
        self._wake()
        if self._sockets is not None:
            self._sockets.close()
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(timeout=READ_TIMEOUT)
        self._history.close()
        self.settle()

    def settle(self) -> None:
        """Nothing more is counted. Repeating it is harmless."""
        self._tally.settle(self._hub.stats)

    def abandon(self) -> None:
        """In a fork: closes the copies of what its parent has open, which keeps it.

        Of the threads nothing is left, but greenlets are forked as well, and rest from now on.
        Repeating it is harmless.
        """
        # Another one, since whoever held the lock of the old one may not be here.
        self._closing = WakeUp()
        self._closing.set()
        self._history.close()
        if self._channels is not None:
            self._channels.close()
        if self._sockets is not None:
            self._sockets.abandon()

    # Threads

    def _start(self) -> None:
        """Starts the threads, once. Called under the lock."""
        if self._closing.is_set():
            return
        loops = (
            ("listener", self._listen),
            ("history", self._read_history),
            ("ticker", self._tick),
        )
        self._watch_server()
        self._tally.add(self._hub.stats)
        # All of them but for those that an earlier call could start before threads ran out.
        for name, loop in loops[len(self._threads) :]:
            self._start_thread(name, loop)
        self._has_started = True

    def _start_undisturbed(self) -> None:
        with self._lock:
            try:
                self._start()
            except RuntimeError as exc:
                _log.warning("nothing can be received: %s", exc)

    def _start_thread(self, name: str, loop: Callable[[], None]) -> None:
        _watch_forks()
        _started.add(self)
        starting = threading.Lock()
        thread = threading.Thread(
            target=self._supervise,
            args=(name, loop, starting),
            name=f"streamy-redis-{name}",
            daemon=True,
        )
        with starting:
            thread.start()
            # Not where its start was interrupted: then the next one starts another.
            self._threads.append(thread)

    def _supervise(self, name: str, loop: Callable[[], None], starting: threading.Lock) -> None:
        with starting:
            if threading.current_thread() not in self._threads:
                return
        pid = os.getpid()
        while not self._closing.is_set():
            try:
                loop()
            except BaseException:
                # Also a greenlet that was killed: somebody's responses depend on it.
                if os.getpid() != pid or self._closing.is_set():
                    break
                _log.exception("the %s thread failed; it is started again", name)
                self._closing.wait(1.0)
        if os.getpid() != pid:
            # A forked greenlet. Python knows of no such thread here, and would complain of its end.
            threading.Event().wait()

    def _tick(self) -> None:
        next_tick = time.monotonic() + TICK_INTERVAL
        while True:
            self._has_moved.wait(next_tick - time.monotonic())
            self._has_moved.clear()
            # In a fork it is another one by now.
            if self._closing.is_set():
                return
            with self._lock:
                now = time.monotonic()
                self._let_come_and_go(now)
                is_due = now >= next_tick
                if is_due:
                    next_tick = now + TICK_INTERVAL
                    self._follow_servers(now)
                    self._hub.tick(now)
            self.drain()
            if is_due:
                self._tally.update()
            if self._close is not None and not self.has_subscribers:
                self._close()

    def _watch_server(self) -> ServerWatch:
        if self._server is None:
            self._server = ServerWatch()
        return self._server

    def _follow_servers(self, now: float) -> None:
        """Ends what stopping servers wait for; where others serve, all goes on. Under the lock."""
        watch = self._watch_server()
        for server in watch.stopped():
            self._hub.close_those_of(server, now)
        if watch.is_stopping():
            self._hub.close(now)
        elif not self._closing.is_set():
            self._hub.reopen()

    def take_thread(self, reason: str) -> None:
        """A response takes a thread, for a reason that is told once, with a warning in time."""
        if not self._has_told:
            self._has_told = True
            _log.info("each stream takes a thread: %s", reason)
        limit = self._server.response_limit() if self._server is not None else None
        if limit is not None and len(self._hub) >= limit and not self._has_warned:
            self._has_warned = True
            _log.warning(
                "%d open stream(s) take every thread of this gunicorn worker, which answers "
                "nothing else meanwhile: use -k gevent, or more --threads",
                len(self._hub),
            )

    def drain(self) -> None:
        """Passes on what the hub has decided."""
        if self._hub.has_requests:
            self._has_requests.set()
        if self._hub.has_commands:
            self._wake()
        interruption: BaseException | None = None
        while self._hub.has_writes:
            turn: list[bool] = []
            try:
                take_turn(self.flushing, turn)
                if turn == [False]:
                    # Whoever writes already looks again when it is done.
                    break
                interruption = self._flush() or interruption
            finally:
                if turn == [True]:
                    self.flushing.release()
        if interruption is not None:
            raise interruption

    def _flush(self) -> BaseException | None:
        """Writes what there is; what interrupted the caller meanwhile, to be raised after it."""
        with self._lock:
            outbox = self._hub.outbox_to_write()
            ends = self._hub.ends_to_tell()
            sent = self._hub.times_to_tell()
        outbox.write()
        interruption = None
        if outbox.has_news:
            with self._lock:
                failures = self._hub.receive_written(time.monotonic())
            interruption = self._tell(failures)
        for stream_id, reason in ends:
            _log.debug("a response of %r ended: %s", stream_id, reason)
        if sent:
            self._tally.written(sent)
        return interruption

    def _tell(self, failures: list[Failure]) -> BaseException | None:
        """Logs them, but for what was aimed at the caller's thread: a signal, a killed greenlet.

        At threads of ours nobody aims.
        """
        is_ours = threading.current_thread() in self._threads
        interruption = None
        for failure in failures:
            if isinstance(failure.error, Exception) or is_ours:
                _log.error(
                    "a response of %r can't be written to and is cut",
                    failure.stream_id,
                    exc_info=failure.error,
                )
            else:
                interruption = failure.error
        return interruption

    def _wake(self) -> None:
        channels = self._channels
        if channels is not None:
            channels.wake()

    # The log

    def _read_history(self) -> None:
        while True:
            self._has_requests.wait()
            self._has_requests.clear()
            if self._closing.is_set():
                return
            while self._hub.has_requests and not self._closing.is_set():
                with self._lock:
                    requests = self._hub.requests_to_send()
                if requests:
                    self._read_batch(requests)

    def _read_batch(self, requests: list[HistoryRequest]) -> None:
        pages: list[HistoryPage | Exception]
        asked_at = time.monotonic()
        lost: Exception | None = None
        try:
            pages = self._history.read(requests)
        except Exception as exc:
            # Whatever it was: a request without an answer would keep its stream waiting for ever.
            pages, lost = [], exc
        except BaseException:
            # For whoever supervises. In a fork the requests are the parent's.
            if not self._closing.is_set():
                self._ask_again(requests, asked_at)
            raise
        if self._closing.is_set():
            # In a fork the page is the parent's.
            return
        if len(pages) < len(requests):
            lost = lost or redis.TimeoutError("Redis did not answer in time")
            pages += [lost] * (len(requests) - len(pages))
        with self._lock:
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
        with self._lock:
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

    def _listen(self) -> None:
        while not self._closing.is_set():
            channels = _Channels(self._pool, self._table, self._link)
            try:
                channels.connect()
                self._converse(channels)
            except (redis.RedisError, OSError) as exc:
                self._tell_loss(exc)
            finally:
                self._channels = None
                channels.close()
                with self._lock:
                    self._hub.connection_lost()
            pause = self._link.pause(time.monotonic(), random.random())
            self._closing.wait(pause)

    def _converse(self, channels: _Channels) -> None:
        """Hears the channels until the connection is lost."""
        self._channels = channels
        with self._lock:
            self._hub.connection_made(time.monotonic())
        while not self._closing.is_set():
            with self._lock:
                commands = self._hub.commands_to_send()
            channels.send(commands)
            messages = channels.receive()
            if messages is not None:
                self._hear(messages)

    def _tell_loss(self, error: Exception) -> None:
        is_news = self._link.lost(without_arguments(error))
        if is_news and not self._closing.is_set():
            _log.warning(
                "the Pub/Sub connection is lost and will be made anew: %s", explained(error)
            )

    def _hear(self, messages: list[Message]) -> None:
        with self._lock:
            now = time.monotonic()
            for stream_id, publication in messages:
                if publication is None:
                    self._hub.receive_subscribed(stream_id)
                else:
                    self._hub.receive_publication(stream_id, publication, now)
        self.drain()


# Those that a fork would inherit.
_started: weakref.WeakSet[Listener] = weakref.WeakSet()


@functools.cache
def _watch_forks() -> None:
    do_in_each_fork(_abandon_all)


def _abandon_all() -> None:
    inherited = list(_started)
    _started.clear()
    for listener in inherited:
        try:
            listener.abandon()
        except Exception:
            # Those of other managers are the parent's as well.
            _log.exception("what a fork has inherited could not be given up")


class _Channels:
    """One Pub/Sub connection. One thread uses it; any may wake it."""

    def __init__(self, pool: redis.ConnectionPool, table: ChannelTable, link: Link) -> None:
        self._connection = listener_connection(pool)
        self._table = table
        self._link = link
        self._wire: Wire | None = None
        link.begun()

    def connect(self) -> None:
        self._connection.connect()
        self._wire = open_wire(self._connection)
        self._link.made(time.monotonic())

    def close(self) -> None:
        if self._wire is not None:
            self._wire.close()
        self._connection.disconnect()

    def wake(self) -> None:
        """Lets receive() return, from any thread."""
        if self._wire is not None:
            self._wire.wake()

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

    def receive(self) -> list[Message] | None:
        """What has arrived; waits for it, a wake-up, or the next look at the silence.

        None if that was all; no message if something else has arrived.

        Raises:
            redis.ConnectionError, redis.TimeoutError: the connection is lost, or silent although
                it was asked.
        """
        assert self._wire is not None
        replies = self._wire.receive(PONG_TIMEOUT / 2)
        if replies is None:
            self._watch()
            return None
        self._note_heard()
        return self._table.read(replies)

    def _watch(self) -> None:
        """Asks after a silence."""
        now = time.monotonic()
        if self._link.is_silent(now):
            raise redis.TimeoutError(f"no answer to PING for {PONG_TIMEOUT} s")
        if self._link.must_ping(now):
            self._send(("PING",))
