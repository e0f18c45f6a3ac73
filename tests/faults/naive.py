"""What people write first, to show that the checker sees what goes wrong with it."""

from __future__ import annotations

import contextlib
import queue
import re
import socket
import socketserver
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import h11
import redis
import redis.asyncio

from streamy_redis.core.idempotency import IdempotencyKey, Nonce
from streamy_redis.keys import Keys
from streamy_redis.replies import PythonReplies
from streamy_redis.scripts import PUBLISH, Command, event_ids, publish_arguments
from tests.browser import EventSource
from tests.deadline import Deadline
from tests.event_stream import MessageEvent, events_of
from tests.exactly_once import Delivery, SentLog, position_of

from .senders import HISTORY_LENGTH

__all__ = [
    "FireAndForget",
    "ForgetfulBrowser",
    "NaiveAsyncSender",
    "NaivePoller",
    "NaiveSender",
    "NaiveSubscriber",
    "NaiveView",
    "SharedConnection",
    "assert_lost",
    "assert_mixed_up",
    "stored",
]

_IS_FRAME = re.compile(rb"\nid: \d+-\d+-[0-9a-f]{8}\n")


class NaiveSubscriber:
    """A bare redis-py `listen()` loop on a stream's channel, restarted when it raises.

    Its record has the form of a browser's: it is owed what is newer than `start`.
    """

    def __init__(self, url: str, channel: str, *, start: str) -> None:
        self.events = [MessageEvent("stream-open", "{}", start)]
        self._url = url
        self._name = f"naive-{id(self)}"
        self._channel = channel
        self._stopping = threading.Event()
        self._ready = threading.Event()
        # Whatever restarts it after an error takes a moment; a test may say how long.
        self.may_restart = threading.Event()
        self.may_restart.set()
        self._redis = redis.Redis.from_url(url, client_name=self._name)
        self._thread = threading.Thread(target=self._run, name="naive", daemon=True)
        self._thread.start()
        assert self._ready.wait(10)

    def _run(self) -> None:
        while not self._stopping.is_set():
            with contextlib.suppress(redis.RedisError, OSError, ValueError, AttributeError):
                self._listen()
            time.sleep(0.01)
            self.may_restart.wait()

    def _listen(self) -> None:
        with self._redis.pubsub() as self._pubsub:
            self._pubsub.subscribe(self._channel)
            for message in self._pubsub.listen():
                if message["type"] == "subscribe":
                    self._ready.set()
                elif message["type"] == "message":
                    self._take(message["data"])
                if self._stopping.is_set():
                    return

    def _take(self, data: bytes) -> None:
        if _IS_FRAME.search(data):
            self.events += events_of(data)
        else:
            self.events.append(MessageEvent("message", repr(data), "0-0-junk"))

    def assert_caught(self, sent: SentLog, *, resets: int = 0) -> Delivery:
        """The checker must not be content with this one's record."""
        delivery = Delivery(sent, self.events)
        try:
            delivery.assert_exactly_once(resets=resets)
        except AssertionError:
            return delivery
        raise AssertionError(f"the checker has no teeth: {delivery.verdict()}")

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """It loses its connection, and is started again after what happens meanwhile."""
        self.may_restart.clear()
        self._lose_connection()
        with contextlib.closing(redis.Redis.from_url(self._url)) as store:
            Deadline(5).until(lambda: not self._is_heard_by(store), "it is gone")
            yield
            self.may_restart.set()
            Deadline(5).until(lambda: self._is_heard_by(store), "it is back")

    def _is_heard_by(self, store: redis.Redis) -> bool:
        """Whether Redis has a subscription of its name."""
        return any(
            client["name"] == self._name and client["sub"] == "1" for client in store.client_list()
        )

    @property
    def is_listening(self) -> bool:
        """Whether its loop goes on."""
        return self._thread.is_alive()

    def close(self) -> None:
        self._stopping.set()
        self.may_restart.set()
        # A loop that hangs on a dead connection hangs for ever: that is what it is.
        Deadline(5).until(self._is_over, "the naive subscriber ends", every=0.05)
        self._redis.close()

    def _is_over(self) -> bool:
        # Once isn't enough: redis-py connects again by itself.
        self._lose_connection()
        return not self._thread.is_alive()

    def _lose_connection(self) -> None:
        with contextlib.suppress(redis.RedisError, OSError, ValueError, AttributeError):
            self._pubsub.connection._sock.shutdown(socket.SHUT_RDWR)


class ForgetfulBrowser(EventSource):
    """Comes back without its Last-Event-ID, as many hand-written clients do."""

    def _request(self) -> h11.Request:
        self.last_event_id = ""
        return super()._request()


def keys_of(prefix: str, stream_id: str) -> list[str]:
    return [Keys(prefix).log(stream_id)]


def publishing(keys: list[str], data: str) -> tuple[Command, list[Nonce]]:
    """The real command for one event, as the first try sends it, and what its id is made of."""
    nonces = IdempotencyKey.given(data).nonces(1)
    arguments = publish_arguments(
        [f"data: {data}\n".encode()],
        nonces,
        is_end=False,
        history_length=HISTORY_LENGTH,
        ttl=60,
        search="",
        witness=None,
    )
    return PUBLISH.by_source(keys, arguments), nonces


class NaiveSender:
    """Sends with redis-py's own retries, over one connection that is open from the start.

    The script and its arguments are the real ones; only the care for a lost reply is missing.
    """

    def __init__(self, url: str, prefix: str, stream_id: str) -> None:
        self._port = int(url.rpartition(":")[2].partition("/")[0])
        self._redis = redis.Redis(port=self._port, socket_timeout=1.0)
        self._redis.ping()
        self._keys = keys_of(prefix, stream_id)
        self.sent = SentLog()

    def send(self, data: str) -> None:
        command, nonces = publishing(self._keys, data)
        while True:
            with contextlib.suppress(redis.RedisError):
                _status, position = self._redis.execute_command(*command)
                break
        self.sent.returned(event_ids(position.decode(), nonces)[0], data)

    def assert_caught(self) -> None:
        """What it sent once is stored twice, and the checker says so."""
        opened = MessageEvent("stream-open", "{}", "0-0-0")
        with contextlib.closing(redis.Redis(port=self._port)) as store:
            seen = stored(store, self._keys[0])
        assert Delivery(self.sent, [opened, *seen]).foreign, "the checker has no teeth"

    def close(self) -> None:
        self._redis.close()


def stored(store: redis.Redis, log_key: str) -> list[MessageEvent]:
    """What a log holds, as a browser would see it."""
    return [
        event
        for _, fields in store.xrange(log_key)
        if b"frame" in fields
        for event in events_of(fields[b"frame"])
    ]


class SharedConnection:
    """One connection for all threads, and for all processes that are forked.

    Without a lock, and without a look at whose process this is.
    """

    def __init__(self, url: str, prefix: str) -> None:
        port = int(url.rpartition(":")[2].partition("/")[0])
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=1)
        self._pack = redis.Connection().pack_command
        self._replies = PythonReplies()
        # So that what is read is a whole reply, if another's.
        self._reading = threading.Lock()
        self._prefix = prefix

    def send(self, stream_id: str, data: str) -> str:
        command, nonces = publishing(keys_of(self._prefix, stream_id), data)
        self._socket.sendall(b"".join(self._pack(*command)))
        _status, position = self._receive()
        return event_ids(position.decode(), nonces)[0]

    def _receive(self) -> Any:
        # A fork may have inherited it as taken.
        is_alone = self._reading.acquire(timeout=2)
        try:
            while (reply := self._replies.gets()) is False:
                piece = self._socket.recv(65536)
                if not piece:
                    raise ConnectionError("closed")
                self._replies.feed(piece)
            return reply
        finally:
            if is_alone:
                self._reading.release()

    def send_some(self, stream_id: str, name: str, count: int = 50) -> list[tuple[str, str]]:
        """The ids that were returned, each with its data; until a reply makes no sense."""
        told: list[tuple[str, str]] = []
        with contextlib.suppress(redis.RedisError, OSError, ValueError, TypeError, AttributeError):
            for number in range(count):
                data = f"{name} {number}"
                told.append((self.send(stream_id, data), data))
        return told

    def close(self) -> None:
        self._socket.close()


def assert_mixed_up(told: Iterable[Sequence[str]], seen: list[MessageEvent]) -> None:
    """Of senders that were told (id, data), some were told what is another's."""
    log = {event.last_event_id: event.data for event in seen}
    assert any(log.get(event_id) != data for event_id, data in told), "the checker has no teeth"


class FireAndForget:
    """A daemon thread sends what was put into a queue: send() returns before Redis knows."""

    def __init__(self, url: str, prefix: str, stream_id: str) -> None:
        self._sender = NaiveSender(url, prefix, stream_id)
        self._queue: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            self._sender.send(self._queue.get())

    def send(self, data: str) -> None:
        self._queue.put(data)


def assert_lost(returned: Iterable[str], seen: list[MessageEvent]) -> None:
    """Some of what senders believe that they have sent isn't there."""
    assert set(returned) - {event.data for event in seen}, "the checker has no teeth"


class NaiveAsyncSender:
    """redis-py's own client for asyncio, made once, with as many connections as a manager has."""

    def __init__(self, url: str, prefix: str, stream_id: str) -> None:
        self._redis = redis.asyncio.Redis.from_url(url, max_connections=3)
        self._keys = keys_of(prefix, stream_id)
        self.failed: list[BaseException] = []

    async def send(self, data: str) -> None:
        command, _ = publishing(self._keys, data)
        try:
            await self._redis.execute_command(*command)
        except (redis.RedisError, RuntimeError, OSError) as error:
            self.failed.append(error)

    def assert_caught(self, kind: type[BaseException]) -> None:
        """Sends failed although nothing is wrong with Redis."""
        assert any(isinstance(error, kind) for error in self.failed), "the test has no teeth"

    async def close(self) -> None:
        await self._redis.connection_pool.disconnect()


class NaivePoller:
    """Reads a log when it is told to, and takes what is newer than what it had."""

    def __init__(self, store: redis.Redis, log_key: str, *, start: str) -> None:
        self.events = [MessageEvent("stream-open", "{}", start)]
        self._store = store
        self._log_key = log_key

    def poll(self) -> None:
        newest = position_of(self.events[-1].last_event_id)
        log = stored(self._store, self._log_key)
        self.events += [event for event in log if position_of(event.last_event_id) > newest]

    def assert_caught(self, sent: SentLog) -> None:
        assert Delivery(sent, self.events).missing, "the checker has no teeth"


class NaiveView:
    """A view of the kind that tutorials show, on a server with a thread for each client.

    One listen loop, a queue without a bound for each client, no keep-alive; who has left is
    noticed when something is written, and its queue stays.
    """

    def __init__(self, url: str, channel: str) -> None:
        self.queues: list[queue.Queue[bytes]] = []
        self._sockets: list[socket.socket] = []
        self._redis = redis.Redis.from_url(url)
        self._pubsub = self._redis.pubsub()
        self._pubsub.subscribe(**{channel: self._take})
        self._listener = self._pubsub.run_in_thread(sleep_time=0.05, daemon=True)
        view = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    view._serve(self.request)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.request_queue_size = 128
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/events/naive"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="naive view", daemon=True
        )
        self._thread.start()

    def _take(self, message: dict[str, bytes]) -> None:
        for each in self.queues:
            each.put(message["data"])

    def _serve(self, client: socket.socket) -> None:
        events: queue.Queue[bytes] = queue.Queue()
        self._sockets.append(client)
        self.queues.append(events)
        client.recv(65536)
        client.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
            b"event: stream-open\ndata: {}\n\n"
        )
        while event := events.get():
            client.sendall(event)

    @property
    def held(self) -> int:
        """The bytes that wait for clients; what waits for several counts once."""
        waiting = {id(event): len(event) for each in self.queues for event in list(each.queue)}
        return sum(waiting.values())

    def assert_holds_more_than(self, size: int) -> None:
        Deadline(5).until(lambda: self.held > size, lambda: f"no teeth: it holds {self.held}")

    def assert_leaves_behind(self, count: int) -> None:
        """The queues of clients that left."""
        Deadline(5).until(lambda: len(self.queues) >= count, "the test has teeth")

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(5)
        for each in self.queues:
            each.put(b"")
        for client in self._sockets:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        # Waits for its threads.
        self._server.server_close()
        self._listener.stop()
        self._listener.join(5)
        self._redis.close()
