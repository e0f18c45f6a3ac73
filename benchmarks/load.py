"""The load client: many open responses in one process, without a thread or a task for any.

It has to be cheaper than any server: epoll, one buffer for all, and two searches a read. After
each look it rests a moment: a reader that waits for every write is woken by every write, at the
expense of the server that writes, as no client on another machine would be.
"""

from __future__ import annotations

import array
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from .cores import pin, raise_file_limit, rest_cores
from .receiver import Receiver
from .remote import serve

__all__ = ["Ask", "Progress", "Received", "main"]

# Requests that wait for their response's head at once; less than any server's backlog.
_MOST_WAITING = 64
# Seconds between two groups of requests to a server that is silent until its first event, and
# the requests in each.
_SILENT_INTERVAL, _SILENT_GROUP = 0.02, 8
# Seconds of rest between two looks; what latencies may be too long by.
_REST = 0.0005
# Where struct tcp_info has tcpi_data_segs_in: on loopback a segment is a write of the server's.
_TCP_INFO_SIZE, _DATA_SEGMENTS = 192, 152


@dataclass(frozen=True, slots=True)
class Ask:
    """Whom to ask, and how.

    Attributes:
        path: with {} for the stream's name.
        last_event_id: the cursor to resume from.
        is_silent: whether the server answers nothing, not even a head, before the first event.
    """

    port: int
    path: str
    last_event_id: str | None = None
    is_silent: bool = False

    def request(self, stream_id: str) -> bytes:
        lines = [
            f"GET {self.path.format(stream_id)} HTTP/1.1",
            "Host: 127.0.0.1",
            "Accept: text/event-stream",
        ]
        if self.last_event_id:
            lines.append(f"Last-Event-ID: {self.last_event_id}")
        return "\r\n".join([*lines, "", ""]).encode()


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the load is. Counts are of clients, but for the events received by all of them."""

    asked: int
    opened: int
    refused: int
    closed: int
    probed: int
    events: int


@dataclass(frozen=True, slots=True)
class Received:
    """What arrived since `begin`.

    Attributes:
        events: received by all clients together.
        incomplete: clients that lack an event, or got one twice or out of order.
        latencies: seconds from send to receipt: the 50th and the 99th percentile.
        last_at: when the last read was.
        writes: pieces in which the server wrote, by all clients together.
        cpu: seconds that the load client used.
    """

    events: int
    incomplete: int
    latencies: tuple[float, float]
    last_at: float
    writes: int
    cpu: float


class _Client:
    """One connection."""

    __slots__ = ("receiver", "segments", "socket")

    def __init__(self, ask: Ask, stream_id: str) -> None:
        self.receiver = Receiver()
        self.socket = socket.create_connection(("127.0.0.1", ask.port), timeout=10)
        self.socket.sendall(ask.request(stream_id))
        self.socket.setblocking(False)
        self.segments = 0

    def data_segments(self) -> int:
        info = self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        segments: int = struct.unpack_from("I", info, _DATA_SEGMENTS)[0]
        return segments


class Load:
    """All clients. Its methods are called from the bench's process, by `Remote`."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._epoll = select.epoll()
        self._epoll.register(pipe.fileno(), select.EPOLLIN)
        self._buffer = bytearray(1024 * 1024)
        self._clients: dict[int, _Client] = {}
        self._to_open: deque[tuple[Ask, str]] = deque()
        self._next_group_at = 0.0
        self._closed = 0
        self._asked = 0
        self._latencies: array.array[float] = array.array("d")
        self._last_at = 0.0
        self._cpu = 0.0

    def run(self) -> None:
        """Reads until the bench goes away."""
        while True:
            if self._to_open:
                self._open_some()
            for fd, _ in self._epoll.poll(0.002 if self._to_open else 1.0, maxevents=8192):
                if fd != self._pipe.fileno():
                    self._read(fd)
                elif not serve(self, self._pipe):
                    return
            time.sleep(_REST)

    def open(self, ask: Ask, stream_ids: Sequence[str]) -> None:
        """Begins to open a response for each name."""
        self._to_open.extend((ask, stream_id) for stream_id in stream_ids)

    def progress(self) -> Progress:
        receivers = [client.receiver for client in self._clients.values()]
        return Progress(
            asked=self._asked,
            opened=sum(receiver.status == 200 for receiver in receivers),
            refused=sum(receiver.status not in (0, 200) for receiver in receivers),
            closed=self._closed,
            probed=sum(receiver.is_probed for receiver in receivers),
            events=sum(receiver.count for receiver in receivers),
        )

    def begin(self, samples: int) -> None:
        """Measures from now on; that many clients look at every event in full."""
        every = max(1, len(self._clients) // samples)
        for i, client in enumerate(self._clients.values()):
            client.receiver.is_sampled = i % every == 0
            client.segments = client.data_segments()
        self._latencies = array.array("d")
        self._cpu = time.process_time()

    def end(self, expected: int) -> Received:
        """What arrived; each client should have received so many events."""
        cpu = time.process_time() - self._cpu
        clients = self._clients.values()
        return Received(
            events=sum(client.receiver.count for client in clients),
            incomplete=sum(
                client.receiver.count != expected or client.receiver.faults > 0
                for client in clients
            ),
            latencies=self._percentiles(),
            last_at=self._last_at,
            writes=sum(client.data_segments() - client.segments for client in clients),
            cpu=cpu,
        )

    def close(self) -> None:
        """Closes all responses."""
        self._to_open.clear()
        for client in self._clients.values():
            client.socket.close()
        self._clients.clear()
        self._asked = self._closed = 0

    def _percentiles(self) -> tuple[float, float]:
        ordered = sorted(self._latencies)
        if not ordered:
            return (0.0, 0.0)
        return (ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100])

    def _open_some(self) -> None:
        if self._to_open[0][0].is_silent:
            if time.monotonic() < self._next_group_at:
                return
            self._next_group_at = time.monotonic() + _SILENT_INTERVAL
            count = _SILENT_GROUP
        else:
            answered = sum(client.receiver.status != 0 for client in self._clients.values())
            count = _MOST_WAITING - (len(self._clients) - answered)
        for _ in range(min(count, len(self._to_open))):
            client = _Client(*self._to_open.popleft())
            self._clients[client.socket.fileno()] = client
            self._epoll.register(client.socket.fileno(), select.EPOLLIN)
            self._asked += 1

    def _read(self, fd: int) -> None:
        client = self._clients.get(fd)
        if client is None:
            return
        try:
            length = client.socket.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError:
            length = 0
        now = time.monotonic()
        if length:
            self._last_at = now
            client.receiver.feed(self._buffer, length, now, self._latencies)
        else:
            self._epoll.unregister(fd)
            self._closed += 1


def main(pipe: Connection) -> None:
    """The load client's process."""
    pin(rest_cores())
    raise_file_limit()
    Load(pipe).run()
