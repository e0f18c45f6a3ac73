"""Clients that don't read, hardly read, vanish, or leave before they have arrived.

None of it can harm a bare `listen()` loop, which has no clients: there is nothing to catch here.
"""

from __future__ import annotations

import contextlib
import random
import socket
import time
import urllib.parse

import psutil
import pytest

from tests.deadline import Deadline

from .crowd import come_and_go
from .rude_clients import BlackHole, RudeClient, TricklingClient, may_vanish
from .stage import Scene, Stage, StageSite

EVENT = "x" * 50_000
# Bytes of a process for each client that doesn't read: its backlog (1 MiB by default), once more
# as the chunk that a write is stuck with, and what both cost in Python.
CLIENT_BYTES = 3 * 1024 * 1024
# And what an allocator keeps.
PROCESS_BYTES = 40 * 1024 * 1024


def memory(site: StageSite) -> int:
    return sum(psutil.Process(worker.pid).memory_info().rss for worker in site.server.workers())


def no_channel_left(scene: Scene, room: str) -> None:
    """The channel of a stream is left within 5 s of its last subscriber's leaving."""
    channel = f"{scene.stage.prefix}:{{{room}}}"
    Deadline(10).until(
        lambda: scene.admin.pubsub_numsub(channel)[0][1] == 0,
        lambda: "\n\n".join([room, *(site.open_sockets() for site in scene.stage.sites)]),
        every=0.05,
    )


def test_clients_that_never_read_and_that_read_1_kb_a_second(stage: Stage):
    with stage.scene() as scene, contextlib.ExitStack() as stack:
        crowd = f"{scene.room} crowd"
        before = [memory(site) for site in stage.sites]
        stuck, trickling = [], []
        for site in stage.sites:
            url = site.server.stream_url("events", crowd)
            for _ in range(4):
                stuck.append(stack.enter_context(contextlib.closing(silent(url))))
            trickling.append(stack.enter_context(contextlib.closing(TricklingClient(url))))
        quick = [site.browser(crowd).wait_open() for site in stage.sites]
        most = list(before)
        # Ten times what the kernel and the backlog of a client hold.
        for n in range(120):
            data = f"{n} {EVENT}"
            scene.sender.streams.send_event(crowd, data)
            most = [max(m, memory(site)) for m, site in zip(most, stage.sites, strict=True)]
            # At a pace that a client who reads keeps up with.
            for browser in quick:
                browser.wait_for(n + 1)

        assert [browser.connects for browser in quick] == [1, 1]
        clients = len(stuck) // len(stage.sites) + 1
        for grown in (m - b for m, b in zip(most, before, strict=True)):
            assert grown < clients * CLIENT_BYTES + PROCESS_BYTES, f"{grown / 1e6:.0f} MB"
        for browser in quick:
            browser.close()
        # Those that don't read are sent away although they are still there.
        no_channel_left(scene, crowd)
        scene.finish()
        assert scene.is_connected()


def silent(url: str) -> RudeClient:
    return RudeClient(url, receive_buffer=4096)


def test_clients_whose_machine_lost_its_power(scene: Scene):
    """Without FIN. Their sockets are closed in silence where this process may; see below.

    Nobody sends to their stream: they are noticed at a keep-alive.
    """
    crowd = f"{scene.room} crowd"
    with socket.socket() as probe:
        if not may_vanish(probe):
            pytest.skip("needs CAP_NET_ADMIN; the next one does without")
    for site in scene.stage.sites:
        url = site.server.stream_url("events", crowd)
        for client in [RudeClient(url).read_until(b"stream-open") for _ in range(10)]:
            client.vanish()

    no_channel_left(scene, crowd)
    scene.finish()
    assert scene.is_connected()


def test_clients_behind_a_way_that_swallows_everything(stage: Stage):
    """Without FIN, RST, or an answer of any kind, on a stream that goes on.

    What listens with redis-py has no clients that could vanish: nothing to catch.
    """
    with stage.scene() as scene, contextlib.ExitStack() as stack:
        crowd = f"{scene.room} crowd"
        before = [memory(site) for site in stage.sites]
        holes = []
        for site in stage.sites:
            hole = stack.enter_context(contextlib.closing(BlackHole(site.server.port)))
            holes.append(hole)
            url = site.server.stream_url("events", crowd).replace(
                f":{site.server.port}/", f":{hole.port}/"
            )
            for _ in range(10):
                client = RudeClient(url, receive_buffer=4096).read_until(b"stream-open")
                stack.callback(client.close)
        for hole in holes:
            hole.swallow_everything()
        most = list(before)
        for n in range(120):
            scene.sender.streams.send_event(crowd, f"{n} {EVENT}")
            most = [max(m, memory(site)) for m, site in zip(most, stage.sites, strict=True)]

        # Sent away at a bound of the backlog, although they are still there.
        no_channel_left(scene, crowd)
        for grown in (m - b for m, b in zip(most, before, strict=True)):
            assert grown < 10 * CLIENT_BYTES + PROCESS_BYTES, f"{grown / 1e6:.0f} MB"
        scene.finish()
        assert scene.is_connected()


def test_5000_clients_that_come_and_go(stage: Stage, rng: random.Random):
    """To a stream with events, where a gthread worker notices at once that they left."""
    with stage.scene() as scene:
        for site in stage.sites:
            path = f"/events/{urllib.parse.quote(scene.room)}"
            # All of a gthread worker's threads but those of who stays, and one to spare.
            come_and_go(site.server.port, path, 2500, rng, at_once=25)
        scene.finish()
        assert scene.is_connected()


def test_clients_that_leave_in_the_middle_of_subscribing(scene: Scene, rng: random.Random):
    """Each to a stream of its own, so that each costs a SUBSCRIBE, a page and an UNSUBSCRIBE."""
    for site in scene.stage.sites:
        count = 250 if site.kind.is_asgi else 100
        for n in range(count):
            client = RudeClient(site.server.stream_url("events", f"{scene.room} left {n}"))
            time.sleep(rng.choice([0, 0, 0.0005, 0.001, 0.003]))
            if rng.random() < 0.5:
                client.reset()
            else:
                client.close()

    pattern = f"{scene.stage.prefix}:*left*"
    Deadline(15).until(
        lambda: not scene.admin.pubsub_channels(pattern),
        lambda: scene.admin.pubsub_channels(pattern),
        every=0.1,
    )
    scene.finish()
    assert scene.is_connected()
