"""Clients that don't read, hardly read, vanish, or leave before they have arrived.

A bare `listen()` loop has no clients that could harm it: here a view around one is caught.
"""

from __future__ import annotations

import contextlib
import random
import time
import urllib.parse

import psutil
import pytest

from tests.deadline import Deadline

from .crowd import come_and_go
from .naive import NaiveView
from .rude_clients import BlackHole, RudeClient, TricklingClient
from .stage import Scene, Stage, StageSite

# 40 MB: far more than what the kernel and backlogs hold, in fewer events than max_backlog, so that
# it is by their bytes that backlogs are bounded.
EVENT = "x" * 100_000
COUNT = 400
# Bytes by which a process may grow: for each client that doesn't read a backlog (1 MiB by default),
# once more as the chunk that a write is stuck with; and what an allocator keeps. Backlogs share
# their frames: without a bound it would grow by what is sent, once for all clients.
CLIENT_BYTES = 2 * 1024 * 1024
PROCESS_BYTES = 8 * 1024 * 1024


def memory(site: StageSite) -> int:
    return sum(psutil.Process(worker.pid).memory_info().rss for worker in site.server.workers())


def no_channel_left(scene: Scene, room: str, *, but: int = 0) -> None:
    """The channel of a stream is left within 5 s of its last subscriber's leaving.

    Args:
        but: how many naive ones stay.
    """
    channel = f"{scene.stage.prefix}:{{{room}}}"
    Deadline(10).until(
        lambda: scene.admin.pubsub_numsub(channel)[0][1] == but,
        lambda: "\n\n".join([room, *(site.open_sockets() for site in scene.stage.sites)]),
        every=0.05,
    )


def naive_view(scene: Scene, stream_id: str) -> contextlib.closing[NaiveView]:
    return contextlib.closing(
        NaiveView(scene.stage.redis.url, f"{scene.stage.prefix}:{{{stream_id}}}")
    )


class Memory:
    """By how much each site's processes grow, at the most."""

    def __init__(self, sites: list[StageSite]) -> None:
        self._sites = sites
        self._before = [memory(site) for site in sites]
        self.grown = [0 for _ in sites]

    def look(self) -> None:
        now = [memory(site) - was for site, was in zip(self._sites, self._before, strict=True)]
        self.grown = [max(pair) for pair in zip(self.grown, now, strict=True)]

    def assert_bounded(self, clients: int, view: NaiveView) -> None:
        """Within the bounds of so many clients' backlogs, which the naive view is not."""
        bound = clients * CLIENT_BYTES + PROCESS_BYTES
        print(f"grew by {self.grown}, {bound} allowed; naively {view.held}")
        assert max(self.grown) < bound, self.grown
        view.assert_holds_more_than(bound)


@pytest.mark.heavy
def test_clients_that_never_read_and_that_read_1_kb_a_second(stage: Stage):
    with stage.scene() as scene, contextlib.ExitStack() as stack:
        crowd = f"{scene.room} crowd"
        view = stack.enter_context(naive_view(scene, crowd))
        for url in [view.url, *(site.server.stream_url("events", crowd) for site in stage.sites)]:
            for _ in range(4):
                stack.enter_context(contextlib.closing(silent(url)))
            stack.enter_context(contextlib.closing(TricklingClient(url)))
        quick = [site.browser(crowd).wait_open() for site in stage.sites]
        grown = Memory(stage.sites)
        for n in range(COUNT):
            scene.sender.streams.send_event(crowd, f"{n} {EVENT}")
            grown.look()
            # At a pace that a client who reads keeps up with.
            for browser in quick:
                browser.wait_for(lambda b, n=n: len(b.events) > n + 1)

        assert [browser.connects for browser in quick] == [1, 1]
        grown.assert_bounded(5, view)
        for browser in quick:
            browser.close()
        # Those that don't read are sent away although they are still there.
        no_channel_left(scene, crowd, but=1)
        scene.finish()
        assert scene.is_connected()


def silent(url: str) -> RudeClient:
    return RudeClient(url, receive_buffer=4096)


def test_clients_whose_machine_lost_its_power():
    """Without FIN, and whatever comes to them is answered by nobody.

    Nobody sends to their stream: they are noticed at a keep-alive, which the naive view has not.
    """
    stage = Stage(write_timeout=1.0)
    with (
        contextlib.closing(stage),
        stage.scene() as scene,
        contextlib.ExitStack() as stack,
    ):
        crowd = f"{scene.room} crowd"
        with naive_view(scene, crowd) as view:
            sites = [site.server.stream_url("events", crowd) for site in stage.sites]
            for url in (view.url, *sites):
                for _ in range(10):
                    client = stack.enter_context(contextlib.closing(RudeClient(url)))
                    client.read_until(b"stream-open").vanish()

            no_channel_left(scene, crowd, but=1)
            view.assert_leaves_behind(10)
        stack.close()
        scene.finish()
        assert scene.is_connected()


@pytest.mark.heavy
def test_clients_behind_a_way_that_swallows_everything(stage: Stage):
    """Without FIN, RST, or an answer of any kind, on a stream that goes on."""
    with stage.scene() as scene, contextlib.ExitStack() as stack:
        crowd = f"{scene.room} crowd"
        view = stack.enter_context(naive_view(scene, crowd))
        holes = []
        for port in (view.port, *(site.server.port for site in stage.sites)):
            holes.append(stack.enter_context(contextlib.closing(BlackHole(port))))
            url = f"http://127.0.0.1:{holes[-1].port}/events/{urllib.parse.quote(crowd)}"
            for _ in range(10):
                client = RudeClient(url, receive_buffer=4096).read_until(b"stream-open")
                stack.callback(client.close)
        grown = Memory(stage.sites)
        for hole in holes:
            hole.swallow_everything()
        quick = stage.sites[0].browser(crowd).wait_open()
        for n in range(COUNT):
            scene.sender.streams.send_event(crowd, f"{n} {EVENT}")
            grown.look()
            quick.wait_for(lambda b, n=n: len(b.events) > n + 1)

        grown.assert_bounded(10, view)
        quick.close()
        # Sent away at a bound of the backlog, although they are still there.
        no_channel_left(scene, crowd, but=1)
        scene.finish()
        assert scene.is_connected()


@pytest.mark.heavy
def test_5000_clients_that_come_and_go(stage: Stage, rng: random.Random):
    """To a stream with events, where whoever writes notices at once that they left."""
    with stage.scene() as scene:
        for site in stage.sites:
            path = f"/events/{urllib.parse.quote(scene.room)}"
            come_and_go(site.server.port, path, 2500, rng, at_once=25)
        with naive_view(scene, scene.room) as view:
            come_and_go(view.port, "/", 50, rng)
            view.assert_leaves_behind(50)
        scene.finish()
        assert scene.is_connected()


def test_clients_that_leave_in_the_middle_of_subscribing(scene: Scene, rng: random.Random):
    """Each to a stream of its own, so that each costs a SUBSCRIBE, a page and an UNSUBSCRIBE."""
    for site in scene.stage.sites:
        for n in range(250):
            ask_and_leave(site.server.stream_url("events", f"{scene.room} left {n}"), rng)

    pattern = f"{scene.stage.prefix}:*left*"
    Deadline(15).until(
        lambda: not scene.admin.pubsub_channels(pattern),
        lambda: scene.admin.pubsub_channels(pattern),
        every=0.1,
    )
    with naive_view(scene, f"{scene.room} naive") as view:
        for _ in range(20):
            ask_and_leave(view.url, rng)
        # It has asked Redis for each of them, and notices none that leaves.
        view.assert_leaves_behind(10)
    scene.finish()
    assert scene.is_connected()


def ask_and_leave(url: str, rng: random.Random) -> None:
    client = RudeClient(url)
    time.sleep(rng.choice([0, 0, 0.0005, 0.001, 0.003]))
    if rng.random() < 0.5:
        client.reset()
    else:
        client.close()
