"""Whatever the order in which replay, live events, faults and clients meet: the promise holds."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from streamy_redis.core.event import END, OPEN, RESET, read_frame
from streamy_redis.core.history import HistoryPage, HistoryRequest
from streamy_redis.core.hub import Hub
from streamy_redis.core.pages import PageLimits, Pages
from streamy_redis.core.publication import Position, Publication
from streamy_redis.core.subscriber import CloseReason, Limits, Pacing, State, Subscriber
from streamy_redis.core.witness import Witnesses
from tests.core.redis_model import UNKNOWN, RedisModel

STREAM = "s"
PAGE_LIMITS = PageLimits(
    page_bytes=10_000,
    keep_from=1,
    batch_requests=10,
    batch_bytes=100_000,
    slow_batch=0.1,
    retry_interval=(0.5, 1.5),
)
# What takes history away, or rewrites it: only then may a reset be shown.
HISTORY_FAULTS = {
    "trim",
    "trim_all",
    "delete_newest",
    "delete_one",
    "flush",
    "roll_back",
    "rewrite",
    "expire",
    "expire_unattended",
}


@dataclass(eq=False)
class Response:
    """The writer of one connection; what comes after that goes nowhere."""

    client: Client
    writes_at_once: bool
    is_chunked: bool = False

    def wake(self) -> None:
        if self.client.response is self:
            self.client.wake()

    def write(self, data: bytes) -> bool:
        return self.client.response is not self or self.client.write(data)


@dataclass(eq=False)
class Client:
    """An EventSource: it reconnects with the last id it saw, and checks what it gets.

    And what its response does: writes_at_once is that of a socket or an ASGI response; of any
    other, the test says when it takes.
    """

    world: World
    writes_at_once: bool = False
    response: Response | None = None
    # A write of its that is under way, and whether the response ends with it.
    is_writing: bool = False
    unread: bytes = b""
    is_last: bool = False
    replay: int | str = 0
    cursor: str | None = None
    subscriber: Subscriber | None = None
    # The tag of the last event seen, or None while any event may come first.
    last_tag: str | None = None
    has_reset: bool = False
    resets: int = 0
    # The losses that lay before its last reset, which told of them.
    told_of: int = 0
    received: list[str] = field(default_factory=list)
    is_finished: bool = False
    connects: int = 0

    def connect(self) -> None:
        if self.is_finished or self.subscriber is not None:
            return
        world = self.world
        self.connects += 1
        self.response = Response(self, self.writes_at_once)
        self.subscriber = Subscriber(
            STREAM,
            self.response,
            Limits(max_backlog=4, max_backlog_bytes=10_000, page_events=3, cursor_ttl=600.0),
            cursor=Position.parse(self.cursor),
            replay=self.replay,
            event_name=None,
            pacing=Pacing(
                retry=1000, keep_alive_interval=15.0, write_timeout=30.0, ends_at=float("inf")
            ),
            now=world.now,
        )
        assert world.hub.add(self.subscriber, world.now)

    def disconnect(self) -> None:
        if self.subscriber is not None:
            self.world.hub.remove(self.subscriber, CloseReason.DISCONNECT, self.world.now)
            self.subscriber = self.response = None
            self.is_writing, self.unread, self.is_last = False, b"", False

    def wake(self) -> None:
        if self.writes_at_once and not self.is_writing:
            while self.subscriber is not None and self._take():
                pass

    def write(self, data: bytes) -> bool:
        assert self.subscriber is None or self.subscriber.writing_since is None
        return self._write(data)

    def take(self) -> None:
        """What a client reads, after which its writer goes on."""
        if self.writes_at_once and not self.is_writing:
            return
        self._written()
        if self.writes_at_once:
            self.wake()
        elif self.subscriber is not None:
            self._take()

    def _take(self) -> bool:
        """Whether there was anything, and it is written."""
        assert self.subscriber is not None
        assert not self.is_writing, "asked for more while a write is under way"
        frames, closed = self.world.hub.take(self.subscriber, self.world.now)
        self.is_last = closed is not None
        if frames or self.is_last:
            return self._write(b"".join(frames)) and bool(frames)
        return False

    def _write(self, data: bytes) -> bool:
        assert not self.is_writing, "two writes at once"
        self.is_writing, self.unread = True, data
        if self.writes_at_once and self.world.is_blocking:
            return False
        self._written()
        return True

    def _written(self) -> None:
        data, self.is_writing, self.unread = self.unread, False, b""
        self._read(data)
        if self.is_last and self.subscriber is not None:
            closed, was_silent = self.subscriber.closed, self.subscriber.start is None
            self.subscriber, self.response, self.is_last = None, None, False
            self.is_finished = self.is_finished or (closed is CloseReason.END and was_silent)

    def _read(self, data: bytes) -> None:
        for block in data.removeprefix(b"retry: 1000\n").split(b"\n\n")[:-1]:
            self._see(block.lstrip(b":\n") + b"\n\n")

    def _see(self, frame: bytes) -> None:
        event = read_frame(STREAM, frame)
        note(f"{id(self) % 1000} sees {event.name} {event.id} {event.data}")
        position = Position.parse(event.id)
        assert position is not None, frame
        self.cursor = event.id
        if event.name == OPEN:
            return
        if event.name == RESET:
            assert set(json.loads(event.data)) == {"reason", "requested", "first"}
            self.resets += 1
            self.told_of = self.world.redis.losses
            self.has_reset = True
            self.last_tag = None
            return
        # In order and without a hole: it follows what was seen last, or a reset lies between.
        if self.last_tag is not None and not self.has_reset:
            assert self._can_see(position.tag)
        # Once: no event again, but for the whole log after a reset.
        assert position.tag not in self.received or self.resets
        self.received.append(position.tag)
        self.last_tag, self.has_reset = position.tag, False
        self.is_finished = event.name == END

    def _can_see(self, tag: str) -> bool:
        """Whether nothing lies between the last event and this but what it was told is lost."""
        redis = self.world.redis
        before = redis.follows[tag]
        # It may have seen more than is left, and stand just there.
        kept = [each for each in self.received if each not in redis.lost]
        while before not in (self.last_tag, UNKNOWN, *kept[-1:]):
            if redis.lost.get(before, self.told_of + 1) > self.told_of:
                return False
            before = redis.follows[before]
        return True


class World:
    """One Redis, one process, and its clients."""

    def __init__(self) -> None:
        self.redis = RedisModel()
        self.now = 1000.0
        self.hub = Hub(
            witnesses=Witnesses(100),
            pages=Pages(PAGE_LIMITS),
            max_subscribers=None,
            history_ttl=3600.0,
            cursor_ttl=600.0,
            check_interval=10.0,
            check_jitter=0.3,
            linger=2.0,
            max_recent=2,
            max_recent_bytes=10_000,
            max_batch=3,
            max_batch_bytes=10_000,
        )
        self.is_connected = False
        # Writes at once find that nothing can be written.
        self.is_blocking = False
        # Acknowledgements on their way stand in the same queue as messages, as on the wire.
        self.reads: list[tuple[HistoryRequest, HistoryPage]] = []
        self.issued: list[HistoryRequest] = []
        self.clients: list[Client] = []

    def advance(self, seconds: float) -> None:
        self.now += seconds
        self.redis.advance(seconds)
        self.hub.tick(self.now)

    # What can happen, by name

    def send(self) -> None:
        self.redis.send()

    def add_foreign(self) -> None:
        self.redis.add_foreign()

    def end(self) -> None:
        self.redis.send(is_end=True)

    def connect_listener(self) -> None:
        if not self.is_connected:
            self.is_connected = True
            self.hub.connection_made(self.now)

    def drop_listener(self) -> None:
        self.is_connected = False
        self.redis.is_subscribed = False
        self.redis.in_flight.clear()
        self.hub.connection_lost()

    def run_commands(self) -> None:
        if not self.is_connected:
            return
        commands = self.hub.commands_to_send()
        if commands.unsubscribe:
            self.redis.is_subscribed = False
        if commands.subscribe:
            self.redis.is_subscribed = True
            self.redis.in_flight.append(b"ack")

    def hear(self) -> None:
        if self.redis.in_flight:
            payload = self.redis.in_flight.popleft()
            if payload == b"ack":
                self.hub.receive_subscribed(STREAM)
            else:
                publication = Publication.parse(payload)
                assert publication is not None
                self.hub.receive_publication(STREAM, publication, self.now)

    def swallow(self) -> None:
        """A message is lost although the connection stands."""
        if self.redis.in_flight and self.redis.in_flight[0] != b"ack":
            self.redis.in_flight.popleft()

    def issue_reads(self) -> None:
        self.issued += self.hub.requests_to_send()

    def run_read(self) -> None:
        if self.issued:
            request = self.issued.pop(0)
            self.reads.append((request, self.redis.read(request)))

    def fail_read(self) -> None:
        if self.issued:
            self.hub.history_failed(self.issued.pop(0), self.now)

    def receive_read(self) -> None:
        if self.reads:
            request, page = self.reads.pop(0)
            self.hub.receive_history(request, page, self.now, asked_at=self.now)

    def trim(self) -> None:
        self.redis.trim(2)

    def trim_all(self) -> None:
        self.redis.trim(0)

    def delete_newest(self) -> None:
        self.redis.delete_newest()

    def delete_one(self) -> None:
        self.redis.delete_one()

    def flush(self) -> None:
        self.redis.flush()

    def roll_back(self) -> None:
        # A failover: the connection to the old master is lost as well.
        self.redis.roll_back(2)
        self.drop_listener()

    def rewrite(self) -> None:
        """The same positions get other events, while the connection stands."""
        self.redis.roll_back(2)
        self.redis.send(remembers=False)

    def fork(self) -> None:
        """The same to readers; some are behind what the new master has, or away."""
        if len(self.redis.log) > 2:
            self.roll_back()

    def let_the_sender_die(self) -> None:
        self.redis.let_the_sender_die()

    def expire(self) -> None:
        """An hour without an event, while everything works."""
        for _ in range(361):
            self.pump()
            self.advance(self.redis.history_ttl / 360)

    def expire_unattended(self) -> None:
        """An hour in which nothing works, not even this process's clockwork."""
        self.advance(self.redis.history_ttl + 1)

    def wait(self) -> None:
        self.advance(0.3)

    def wait_for_a_keep_alive(self) -> None:
        self.advance(16.0)

    def new_client(self) -> None:
        self._new_client()

    def new_client_that_is_written_to_at_once(self) -> None:
        self._new_client(writes_at_once=True)

    def new_replaying_client(self) -> None:
        self._new_client(writes_at_once=len(self.clients) % 2 == 0, replay="all")

    def _new_client(self, **arguments: object) -> None:
        self.clients.append(Client(self, **arguments))
        self.clients[-1].connect()

    def write_all(self) -> None:
        while self.hub.has_writes:
            self.hub.outbox_to_write().write()
            for failure in self.hub.receive_written(self.now):
                raise failure.error

    def write_but_block(self) -> None:
        self.is_blocking = True
        self.write_all()
        self.is_blocking = False

    def write_but_be_interrupted_before(self) -> None:
        self.hub.outbox_to_write()

    def write_but_block_and_be_interrupted_after(self) -> None:
        self.is_blocking = True
        self.hub.outbox_to_write().write()
        self.is_blocking = False

    def reconnect_one(self) -> None:
        if self.clients:
            client = self.clients.pop(0)
            self.clients.append(client)
            client.disconnect()
            client.connect()

    def take_one(self) -> None:
        if self.clients:
            client = self.clients.pop(0)
            self.clients.append(client)
            client.take()

    def pump(self) -> None:
        """Everything that is under way arrives."""
        self.connect_listener()
        self.run_commands()
        while self.redis.in_flight:
            self.hear()
        self.issue_reads()
        while self.issued:
            self.run_read()
        while self.reads:
            self.receive_read()
        self.write_all()
        for client in self.clients:
            client.connect()
            client.take()

    def settle(self) -> None:
        """No more faults: everything arrives, and time passes."""
        for _ in range(30):
            for _ in range(6):
                self.pump()
            self.advance(0.5)


ACTIONS = [
    *["pump"] * 4,
    *["send"] * 4,
    *["hear"] * 3,
    *["run_commands", "issue_reads", "run_read", "receive_read", "take_one", "write_all"] * 3,
    *["write_but_block", "wait_for_a_keep_alive"] * 2,
    *["write_but_be_interrupted_before", "write_but_block_and_be_interrupted_after"] * 2,
    "connect_listener",
    "connect_listener",
    "drop_listener",
    "swallow",
    "fail_read",
    "wait",
    "new_client",
    "new_client_that_is_written_to_at_once",
    "new_replaying_client",
    "reconnect_one",
]


def _check_settled(world: World) -> None:
    world.settle()
    newest = world.redis.newest and world.redis.newest_tag
    for client in world.clients:
        if client.is_finished:
            continue
        # Not reading on and on: it stands where the feed stands.
        assert client.subscriber is not None
        assert client.subscriber.state is State.LIVE
        if newest and client.received and not client.has_reset:
            assert client.received[-1] == newest, "left waiting"


def _run(actions: list[str]) -> World:
    world = World()
    world.new_client()
    for action in actions:
        note(action)
        getattr(world, action)()
    _check_settled(world)
    return world


_settings = settings(
    max_examples=int(os.environ.get("STREAMY_TEST_EXAMPLES", "300")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@_settings
@given(st.lists(st.sampled_from([*ACTIONS, "add_foreign"]), min_size=50, max_size=200))
def test_every_event_once_and_in_order_without_a_reset(actions: list[str]) -> None:
    world = _run(actions)

    assert [client.resets for client in world.clients] == [0] * len(world.clients)


@_settings
@given(
    # Nothing foreign: who stands at such an entry has no tag that tells a rewritten history.
    st.lists(st.sampled_from([*ACTIONS, *sorted(HISTORY_FAULTS), "end"]), min_size=50, max_size=200)
)
def test_a_reset_before_anything_newer_where_history_is_lost(actions: list[str]) -> None:
    _run(actions)


@_settings
@given(st.lists(st.sampled_from([*ACTIONS, *["fork"] * 2]), min_size=50, max_size=200))
def test_a_failover_that_lost_events_is_one_reset_for_everybody(actions: list[str]) -> None:
    # Once, and nothing else: while a connection is lost, more may be, and a second one is due.
    others = [a for a in actions if a not in ("fork", "drop_listener", "swallow")]
    world = _run(others)
    world.fork()
    for action in others:
        getattr(world, action)()
    world.send()
    world.settle()

    for client in world.clients:
        # Who comes back in the midst of the whole log has a cursor of the old life again.
        assert client.resets <= world.redis.losses + client.connects - 1


@_settings
@given(
    st.lists(
        st.sampled_from([*ACTIONS, *["fork", "let_the_sender_die"] * 2, "end"]),
        min_size=50,
        max_size=200,
    )
)
def test_a_sender_that_died_hides_no_event_that_a_reader_knows_of(actions: list[str]) -> None:
    world = _run(actions)

    for client in world.clients:
        # One for the events, one where somebody gives the old life up who still knew of them.
        assert client.resets <= 2 * world.redis.losses + client.connects - 1


@_settings
@given(st.lists(st.sampled_from([*ACTIONS, "add_foreign", "end"]), min_size=40, max_size=120))
def test_all_that_were_connected_agree_on_the_end(actions: list[str]) -> None:
    world = _run(actions)
    world.end()
    world.settle()

    assert all(client.is_finished for client in world.clients)


@_settings
@given(st.integers(2, 6), st.lists(st.sampled_from(ACTIONS), min_size=20, max_size=60))
def test_everybody_sees_what_is_sent_after_the_faults(count: int, actions: list[str]) -> None:
    world = _run(actions)
    tags = [world.redis.send() for _ in range(count)]
    world.settle()

    for client in world.clients:
        assert client.received[-count:] == tags


@_settings
@given(st.lists(st.sampled_from([*ACTIONS, "expire"]), min_size=40, max_size=120))
def test_a_log_that_expires_by_itself_is_no_gap_for_who_is_connected(actions: list[str]) -> None:
    world = _run([a for a in actions if a != "reconnect_one"])

    for client in world.clients:
        if client.connects == 1 and not {"swallow", "drop_listener", "fail_read"} & set(actions):
            assert client.resets == 0
