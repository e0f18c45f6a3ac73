"""EventSource as a browser implements it (HTML 9.2.3), on a thread, with everything on record."""

from __future__ import annotations

import contextlib
import enum
import socket
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Mapping

import h11

from .event_stream import EventStreamParser, MessageEvent

__all__ = ["EventSource", "ReadyState"]


class ReadyState(enum.Enum):
    CONNECTING = 0
    OPEN = 1
    CLOSED = 2


class EventSource:
    """Connects, listens, and comes back with its Last-Event-ID until told to stop for good.

    A response that isn't 200 with `text/event-stream` fails the connection: never tried again.
    Anything else that ends a connection, a network error included, is followed by a new one after
    the reconnection time: `retry` ms at first, then what the server says.

    What it saw: `events`, `statuses`, `connects` (attempts), `opens` (responses with 200),
    `headers` of the last response, `received` (the bytes of the bodies, one entry a response),
    `ends` ("clean" when the response was complete, else why not), `retries` told by the server.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        last_event_id: str = "",
        retry: int = 100,
        receive_buffer: int | None = None,
        start: bool = True,
    ) -> None:
        self.url = url
        self.state = ReadyState.CONNECTING
        self.events: list[MessageEvent] = []
        self.arrivals: list[float] = []
        self.statuses: list[int] = []
        self.headers: list[tuple[str, str]] = []
        self.received: list[bytearray] = []
        self.ends: list[str] = []
        self.ended_at: list[float] = []
        self.retries: list[int] = []
        self.connects = 0
        self.opens = 0
        self.last_event_id = last_event_id
        self.failure: str | None = None
        self._request_headers = dict(headers or {})
        self._retry = retry
        self._receive_buffer = receive_buffer
        self._reading = threading.Event()
        self._reading.set()
        self._has_network = threading.Event()
        self._has_network.set()
        self.local_port = 0
        self._parts = urllib.parse.urlsplit(url)
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._socket: socket.socket | None = None
        self._thread = threading.Thread(target=self._run, name=f"EventSource {url}", daemon=True)
        if start:
            self._thread.start()

    # -- what a test asks -------------------------------------------------------------------------

    def wait_for(
        self,
        condition: int | Callable[[EventSource], object],
        timeout: float = 10.0,
        what: str = "",
    ) -> EventSource:
        """Wait until the condition holds, or until there are that many messages."""
        wanted = condition

        def holds() -> object:
            if callable(wanted):
                return wanted(self)
            return len(self.messages) >= wanted

        with self._changed:
            if not self._changed.wait_for(holds, timeout):
                raise AssertionError(f"not within {timeout} s: {what or condition}; {self}")
        return self

    def wait_open(self, timeout: float = 10.0) -> EventSource:
        """Wait for the first `stream-open`: from there on nothing may be missing."""
        return self.wait_for(lambda s: s.of_type("stream-open"), timeout, "stream-open")

    def wait_closed(self, timeout: float = 10.0) -> EventSource:
        """Wait until it has given up for good."""
        return self.wait_for(lambda s: s.state is ReadyState.CLOSED, timeout, "closed for good")

    def of_type(self, *types: str) -> list[MessageEvent]:
        return [event for event in self.events if event.type in types]

    @property
    def messages(self) -> list[MessageEvent]:
        """The events that aren't the stream's own."""
        return [event for event in self.events if not event.type.startswith("stream-")]

    @property
    def data(self) -> list[str]:
        return [event.data for event in self.messages]

    def header(self, name: str) -> str | None:
        """The last response's value of a header, None without; an error when given twice."""
        values = [value for key, value in self.headers if key == name.lower()]
        assert len(values) < 2, f"{name} is given {len(values)} times: {values}"
        return values[0] if values else None

    @property
    def body(self) -> bytes:
        """What the last response brought so far."""
        return bytes(self.received[-1]) if self.received else b""

    def __repr__(self) -> str:
        tail = [(e.type, e.data[:40], e.last_event_id) for e in self.events[-4:]]
        return (
            f"<EventSource {self.url} {self.state.name} connects={self.connects} "
            f"statuses={self.statuses[-5:]} ends={self.ends[-3:]} events={len(self.events)} "
            f"last={tail} body={self.body[-200:]!r} failure={self.failure}>"
        )

    # -- what a test does -------------------------------------------------------------------------

    def start(self) -> EventSource:
        self._thread.start()
        return self

    def cut(self, *, reset: bool = False) -> None:
        """Lose the connection as a network does; it comes back by itself."""
        with self._changed:
            if self._socket is None:
                return
            how = socket.SHUT_RDWR
            if reset:
                # No linger, and no FIN from shutdown: closing sends RST.
                how = socket.SHUT_RD
                linger = struct.pack("ii", 1, 0)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            with contextlib.suppress(OSError):
                self._socket.shutdown(how)

    def leave(self) -> EventSource:
        """Lose the connection, and have no network until come_back()."""
        self._has_network.clear()
        self.cut()
        return self.wait_for(lambda s: s.state is not ReadyState.OPEN, what="it is away")

    def come_back(self) -> None:
        self._has_network.set()

    def pause(self) -> None:
        """Stop reading from the connection, without closing it."""
        self._reading.clear()

    def go_on(self) -> None:
        self._reading.set()

    def close(self) -> None:
        """What the page's close() does; then the thread is gone."""
        self._stopping.set()
        self._reading.set()
        self._has_network.set()
        self.cut()
        if self._thread.ident is not None:
            self._thread.join(10)
            assert not self._thread.is_alive(), f"the thread doesn't end: {self}"

    def __enter__(self) -> EventSource:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    # -- the thread -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                go_on = self._connect_once()
                if not go_on:
                    break
                with self._changed:
                    self.state = ReadyState.CONNECTING
                    self._changed.notify_all()
                self._stopping.wait(self._retry / 1000)
                self._has_network.wait()
        except BaseException as error:  # a mistake of this class must show in the test, not hide
            self.failure = repr(error)
            raise
        finally:
            with self._changed:
                self.state = ReadyState.CLOSED
                self._changed.notify_all()

    def _connect_once(self) -> bool:
        """One connection, from the request to its end; False when it failed for good."""
        with self._changed:
            self.connects += 1
        try:
            address = (self._parts.hostname or "", self._parts.port or 80)
            connection = self._dial(address)
        except OSError as error:
            self._note_end(f"connect: {error}")
            return True
        try:
            # Long enough for every keep-alive interval in use; a silent server is an error.
            connection.settimeout(60)
            with self._changed:
                self._socket = connection
            if self._stopping.is_set():
                return False
            if not self._has_network.is_set():
                return True
            return self._converse(connection)
        finally:
            with self._changed:
                self._socket = None
                connection.close()

    def _dial(self, address: tuple[str, int]) -> socket.socket:
        connection = socket.socket()
        try:
            if self._receive_buffer is not None:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
            connection.settimeout(5)
            connection.connect(address)
        except OSError:
            connection.close()
            raise
        self.local_port = connection.getsockname()[1]
        return connection

    def _request(self) -> h11.Request:
        target = self._parts.path or "/"
        if self._parts.query:
            target += "?" + self._parts.query
        headers = {
            "Host": f"{self._parts.hostname}:{self._parts.port}",
            "Accept": "text/event-stream",
            "Cache-Control": "no-store",
            **self._request_headers,
        }
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        return h11.Request(
            method="GET",
            target=target,
            headers=[(key, value.encode()) for key, value in headers.items()],
        )

    def _converse(self, connection: socket.socket) -> bool:
        http = h11.Connection(h11.CLIENT)
        parser = EventStreamParser(self.last_event_id)
        try:
            connection.sendall(http.send(self._request()) + http.send(h11.EndOfMessage()))
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    self._reading.wait()
                    http.receive_data(connection.recv(65536))
                elif isinstance(event, h11.Response):
                    if not self._take_response(event):
                        return False
                elif isinstance(event, h11.Data):
                    self._take_body(bytes(event.data), parser)
                elif isinstance(event, h11.EndOfMessage):
                    self._note_end("clean")
                    return True
                elif isinstance(event, h11.ConnectionClosed):
                    self._note_end("closed before a response")
                    return True
        except TimeoutError:
            self._note_end("silent for 60 s")
        except OSError as error:
            self._note_end(f"lost: {error}")
        except h11.RemoteProtocolError as error:
            self._note_end(f"incomplete: {error}")
        return True

    def _take_response(self, response: h11.Response) -> bool:
        with self._changed:
            self.statuses.append(response.status_code)
            self.headers = [(k.decode(), v.decode("latin-1")) for k, v in response.headers]
            self.received.append(bytearray())
            kind = next((v for k, v in self.headers if k == "content-type"), "")
            accepted = (
                response.status_code == 200
                and kind.split(";")[0].strip().lower() == "text/event-stream"
            )
            if accepted:
                self.opens += 1
                self.state = ReadyState.OPEN
            self._changed.notify_all()
        return accepted

    def _take_body(self, chunk: bytes, parser: EventStreamParser) -> None:
        now = time.monotonic()
        events = parser.feed(chunk)
        with self._changed:
            self.received[-1] += chunk
            self.last_event_id = parser.last_event_id
            if parser.retry is not None:
                if not self.retries or self.retries[-1] != parser.retry:
                    self.retries.append(parser.retry)
                self._retry = parser.retry
            self.events.extend(events)
            self.arrivals.extend(now for _ in events)
            self._changed.notify_all()

    def _note_end(self, how: str) -> None:
        with self._changed:
            self.ends.append(how)
            self.ended_at.append(time.monotonic())
            self._changed.notify_all()
