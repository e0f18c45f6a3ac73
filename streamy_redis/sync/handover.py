"""Handover: responses whose sockets the listener writes to itself, so that they take no thread.

gunicorn's sync, gthread and gevent workers show the client's socket. It is duplicated, and one
whose other end is closed put in its place: the worker finishes an empty response, finds that its
client has left, and goes on.
The duplicate is written to without blocking, by whoever drains the hub; one thread waits for
clients that leave, and for room where a write would have blocked.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import selectors
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, NamedTuple

from ..config import CHATTER_BYTES
from ..core.chunks import LAST_CHUNK, chunk
from ..core.headers import sent_headers
from ..core.subscriber import CloseReason, Subscriber
from ..servers.sockets import shut_down, swap_user_timeout

if TYPE_CHECKING:
    from .listener import Listener

__all__ = [
    "ResponseHead",
    "SocketWriter",
    "Sockets",
    "TakenSocket",
    "closed_connection",
    "obstacle",
    "response_head",
]

_log = logging.getLogger("streamy_redis.handover")

# One for all: most sockets have room at most times.
_NOTHING = memoryview(b"")


def obstacle(environ: Mapping[str, Any]) -> str | None:
    """Why the request's socket can't be taken over; None if it can."""
    connection = environ.get("gunicorn.socket")
    if connection is None:
        return "the server shows no socket"
    if isinstance(connection, ssl.SSLSocket):
        return "the socket speaks TLS"
    if not isinstance(connection, socket.socket):
        return f"the socket is a {type(connection).__name__}"
    if environ.get("SERVER_PROTOCOL") not in ("HTTP/1.0", "HTTP/1.1"):
        return f"the request came by {environ.get('SERVER_PROTOCOL')}"
    return None


class ResponseHead(NamedTuple):
    """What stands before the body of a response, the last one of its connection."""

    data: bytes
    # Whether the body is (RFC 9112, 7.1), so that a cut can be told from an end; otherwise it ends
    # with the connection (6.3).
    is_chunked: bool


def response_head(
    environ: Mapping[str, Any], status: str, headers: Iterable[tuple[str, str]]
) -> ResponseHead:
    """The head of a response to a request that may be taken over.

    Args:
        environ: of the request.
        status: code and phrase.
        headers: as WSGI has them; those that are a server's to say are added.

    Raises:
        ValueError: one that HTTP can't carry.
    """
    is_chunked = environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
    fields = [*sent_headers(headers), ("Date", _date(int(time.time()))), ("Connection", "close")]
    if is_chunked:
        fields.append(("Transfer-Encoding", "chunked"))
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields), "", ""]
    return ResponseHead("\r\n".join(lines).encode("latin-1"), is_chunked)


@functools.lru_cache(maxsize=1)
def _date(seconds: int) -> str:
    return formatdate(seconds, usegmt=True)


def closed_connection() -> socket.socket:
    """Whoever writes to it learns that its client has left.

    Raises:
        OSError: no descriptor is left.
    """
    connection, other = socket.socketpair()
    other.close()
    return connection


class TakenSocket:
    """A request's socket, on its way out of the worker's hands: still theirs until take().

    Args:
        connection: the worker's.
        body_size: bytes of the request's body, of which a view need not have read any.
        in_its_place: what the worker gets; closed behind it.

    Attributes:
        fd: the duplicate, ours to write and to close.
        is_taken: whether the worker's socket goes nowhere.
        body_size: the same.

    Raises:
        OSError: no descriptor is left.
    """

    def __init__(
        self, connection: socket.socket, body_size: int, in_its_place: socket.socket
    ) -> None:
        self.fd = -1
        self.body_size = body_size
        self.is_taken = False
        self._connection = connection
        self._in_its_place = in_its_place
        try:
            self.fd = os.dup(connection.fileno())
            os.set_blocking(self.fd, False)
        except BaseException:
            self.close()
            raise

    def take(self, user_timeout: int) -> None:
        """From now on the worker has a socket that is closed.

        It may have read requests that came behind this one, and would execute them, answered to
        nobody, if it could go on with its connection: gunicorn asks no application about that.

        Args:
            user_timeout: milliseconds that the client may let TCP wait for it.
        """
        swap_user_timeout(self._connection, 0, user_timeout)
        os.dup2(self._in_its_place.fileno(), self._connection.fileno(), inheritable=False)
        self.is_taken = True
        self._in_its_place.close()

    def close(self) -> None:
        """The worker keeps its socket, unless it was taken. Repeating it is harmless."""
        if not self.is_taken and self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        self._in_its_place.close()

    # A middleware that drops a response need not close it.
    __del__ = close


class SocketWriter:
    """Writes a subscriber's frames to a socket that was taken over.

    Whoever calls it holds the listener's flush lock.
    """

    __slots__ = (
        "_head",
        "_listener",
        "_on_end",
        "_sockets",
        "_tail",
        "_unsent",
        "_untold",
        "fd",
        "is_blocked",
        "is_chunked",
        "subscriber",
    )

    writes_at_once = True

    def __init__(
        self,
        taken: TakenSocket,
        head: ResponseHead,
        subscriber: Subscriber,
        listener: Listener,
        sockets: Sockets,
        on_end: Callable[[], None],
    ) -> None:
        # -1 when it is closed.
        self.fd = taken.fd
        # Bytes that the client may still say.
        self._untold = taken.body_size + CHATTER_BYTES
        # The socket had no room for all of a write; the rest of it.
        self.is_blocked = False
        self.is_chunked = head.is_chunked
        self._unsent = _NOTHING
        # What stands before the body, and after one that is complete, until it is written.
        self._head = head.data
        self._tail = LAST_CHUNK if head.is_chunked else b""
        self.subscriber = subscriber
        self._listener = listener
        self._sockets = sockets
        self._on_end = on_end

    def wake(self) -> None:
        """Takes and writes, until nothing is left or the client has no room."""
        if self.fd < 0:
            return
        if self.subscriber.is_aborted:
            self.close(abruptly=True)
        elif not self.is_blocked:
            self._go_on()

    def _go_on(self) -> None:
        while True:
            frames, closed = self._listener.take(self.subscriber)
            data = self._framed(frames, closed)
            if data and not self.write(data):
                return
            if closed is not None:
                # A body that isn't chunked ends with its connection: only a reset isn't an end.
                looks_complete = closed.is_cut and not self.is_chunked
                self.close(abruptly=closed.is_abrupt or looks_complete)
                return
            if not data:
                return

    def _framed(self, frames: list[bytes], closed: CloseReason | None) -> bytes:
        """What is to be written for these, with what stands around the body where it is due."""
        body = b"".join(frames)
        if body and self.is_chunked:
            body = chunk(body)
        if self._head:
            body, self._head = self._head + body, b""
        if closed is not None and closed.is_complete:
            body, self._tail = body + self._tail, b""
        return body

    def write(self, data: bytes | memoryview) -> bool:
        """Writes what the socket takes; False if that isn't all: writable() will be called."""
        try:
            count = os.write(self.fd, data)
        except BlockingIOError:
            count = 0
        except OSError:
            # The client has left, which the thread that reads its socket is about to see.
            return True
        if count == len(data):
            return True
        self._unsent = memoryview(data)[count:]
        if not self.is_blocked:
            self.is_blocked = True
            self._sockets.watch(self)
        return False

    def attend(self, events: int) -> None:
        """The selector says that something can be read, or written."""
        if events & selectors.EVENT_READ and not self.read():
            self.close(abruptly=True)
        elif events & selectors.EVENT_WRITE:
            self.writable()

    def writable(self) -> None:
        """There is room: the rest first."""
        if self.is_blocked and self.write(self._unsent):
            self._unsent = _NOTHING
            self.is_blocked = False
            self._sockets.watch(self)
            self.wake()

    def read(self) -> bool:
        """Drops what the client says; False when it has left, or says too much."""
        try:
            said = os.read(self.fd, 65536)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self._untold -= len(said)
        return said != b"" and self._untold >= 0

    def close(self, *, abruptly: bool) -> None:
        """The response is over, or its client has left: nothing more is written."""
        self._sockets.forget(self)
        # First of all: who comes once more may find another's descriptor.
        fd, self.fd = self.fd, -1
        with contextlib.suppress(OSError), socket.socket(fileno=fd) as connection:
            # A process forked meanwhile may hold a copy.
            shut_down(connection, abruptly=abruptly)
        try:
            self._on_end()
        except Exception:
            # Others are written to by the same thread.
            _log.exception("what a response does at its end failed")
        finally:
            self._listener.remove(self.subscriber)


class Sockets:
    """The sockets that were taken over, and what their clients do."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._selector = selectors.DefaultSelector()
        # The kernel's take up a change while they wait; gevent's takes it up at the next turn.
        self._is_live = type(self._selector).__name__ in ("EpollSelector", "KqueueSelector")
        self._waker, self._wakened = socket.socketpair()
        self._waker.setblocking(False)
        self._wakened.setblocking(False)
        self._selector.register(self._wakened, selectors.EVENT_READ)
        self._is_closed = False

    def add(self, writer: SocketWriter) -> None:
        self._selector.register(writer.fd, selectors.EVENT_READ, writer)
        self._take_up()

    def watch(self, writer: SocketWriter) -> None:
        """Waits for room as well, or no longer."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if writer.is_blocked else 0)
        self._selector.modify(writer.fd, events, writer)
        self._take_up()

    def _take_up(self) -> None:
        if not self._is_live:
            # A full buffer wakes as well.
            with contextlib.suppress(OSError):
                self._waker.send(b"\0")

    def forget(self, writer: SocketWriter) -> None:
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(writer.fd)

    def close(self) -> None:
        """Lets serve() return."""
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def serve(self) -> None:
        """Waits for what clients do, until it is closed."""
        while not self._is_closed:
            for key, events in self._selector.select():
                if isinstance(key.data, SocketWriter):
                    self._attend(key.data, events)
                else:
                    self._wakened.recv(4096)
        with self._listener.flushing:
            self.abandon()

    def abandon(self) -> None:
        """Closes what is open, without a word to clients: after a fork they are the parent's.

        Repeating it is harmless.
        """
        for key in list((self._selector.get_map() or {}).values()):
            if isinstance(key.data, SocketWriter):
                os.close(key.data.fd)
                key.data.fd = -1
        self._selector.close()
        self._waker.close()
        self._wakened.close()

    def _attend(self, writer: SocketWriter, events: int) -> None:
        with self._listener.flushing:
            # It may be closed since, and its descriptor another's.
            if writer.fd >= 0:
                try:
                    writer.attend(events)
                except BaseException as exc:
                    # Others are attended to by the same thread.
                    self._listener.fail(writer.subscriber, exc)
        self._listener.drain()
