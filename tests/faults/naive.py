"""What people write first, to show that the checker sees what goes wrong with it."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time

import h11
import redis

from streamy_redis.keys import Keys
from streamy_redis.scripts import PUBLISH, event_ids, nonces_of, publish_arguments
from tests.browser import EventSource
from tests.deadline import Deadline
from tests.event_stream import MessageEvent, events_of
from tests.exactly_once import Delivery, SentLog

__all__ = ["ForgetfulBrowser", "NaiveSender", "NaiveSubscriber", "stored"]

_IS_FRAME = re.compile(rb"id: \d+-\d+-[0-9a-f]{8}\n")


class NaiveSubscriber:
    """A bare redis-py `listen()` loop on a stream's channel, restarted when it raises.

    Its record has the form of a browser's: it is owed what is newer than `start`.
    """

    def __init__(self, url: str, channel: str, *, start: str) -> None:
        self.events = [MessageEvent("stream-open", "{}", start)]
        self._channel = channel
        self._stopping = threading.Event()
        self._ready = threading.Event()
        # Whatever restarts it after an error takes a moment; a test may say how long.
        self.may_restart = threading.Event()
        self.may_restart.set()
        self._redis = redis.Redis.from_url(url)
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
        if _IS_FRAME.match(data):
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
        with contextlib.suppress(redis.RedisError, OSError, ValueError, AttributeError):
            self._pubsub.connection._sock.shutdown(socket.SHUT_RDWR)
        return not self._thread.is_alive()


class ForgetfulBrowser(EventSource):
    """Comes back without its Last-Event-ID, as many hand-written clients do."""

    def _request(self) -> h11.Request:
        self.last_event_id = ""
        return super()._request()


class NaiveSender:
    """Sends with redis-py's own retries, over one connection that is open from the start.

    The script and its arguments are the real ones; only the care for a lost reply is missing.
    """

    def __init__(self, url: str, prefix: str, stream_id: str) -> None:
        self._port = int(url.rpartition(":")[2].partition("/")[0])
        self._redis = redis.Redis(port=self._port, socket_timeout=1.0)
        self._redis.ping()
        self._keys = [Keys(prefix).log(stream_id), Keys(prefix).channel(stream_id)]
        self.sent = SentLog()

    def send(self, data: str) -> None:
        nonces = nonces_of("naive", 1)
        arguments = publish_arguments(
            [f"data: {data}\n\n".encode()],
            nonces,
            is_end=False,
            history_length=1000,
            ttl=60,
            may_repeat=False,
        )
        command = PUBLISH.by_source(self._keys, arguments)
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
