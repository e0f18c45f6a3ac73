"""Everybody at once: a stampede of newcomers, and of clients that have much to catch up on."""

from __future__ import annotations

import math
import selectors
import socket
import time
import uuid

import pytest
import redis

from streamy_redis.config import PAGE_EVENTS

from .stage import Scene, Stage

COMMANDS_A_CONNECT = 3


def commands(store: redis.Redis) -> int:
    """What Redis was asked so far, without what the scripts call in turn."""
    asked = ("evalsha", "eval", "subscribe", "unsubscribe", "ping", "publish")
    stats = store.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in asked)


def stampede(port: int, paths: list[str], timeout: float) -> tuple[list[bytes], float]:
    """One request for each path, all at once; what each was answered, up to `stream-open`."""
    selector = selectors.DefaultSelector()
    answers = dict.fromkeys(paths, b"")
    sockets = []
    start = time.monotonic()
    try:
        for path in paths:
            client = socket.create_connection(("127.0.0.1", port), timeout=10)
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            client.setblocking(False)
            selector.register(client, selectors.EVENT_READ, path)
            sockets.append(client)
        waiting = set(paths)
        while waiting and time.monotonic() - start < timeout:
            for key, _ in selector.select(0.2):
                chunk = key.fileobj.recv(65536)  # type: ignore[union-attr]
                answers[key.data] += chunk
                if not chunk or b"event: stream-open\ndata: {}\n\n" in answers[key.data]:
                    waiting.discard(key.data)
                    selector.unregister(key.fileobj)
        return list(answers.values()), time.monotonic() - start
    finally:
        selector.close()
        for client in sockets:
            client.close()


@pytest.mark.parametrize("streams", ["one stream", "a stream each"])
def test_newcomers(stage: Stage, streams: str):
    """300 here; 1,000 in the soak."""
    site = stage.sites[1]
    with stage.scene(rate=20) as scene:
        # The scene's own senders are commands too: quiet.
        scene.sender.stop()
        scene.other.stop()
        scene.wait_complete(2)
        room = uuid.uuid4().hex[:8]
        count = 300
        numbers = [0] * count if streams == "one stream" else range(count)
        paths = [f"/events/{room}-{number}?n={n}" for n, number in enumerate(numbers)]
        before = commands(scene.admin)

        answers, took = stampede(site.server.port, paths, timeout=15)

        asked = commands(scene.admin) - before
        assert {answer.split(b" ", 2)[1] for answer in answers} == {b"200"}
        assert all(b"event: stream-open\n" in answer for answer in answers)
        assert took < 5, f"{took:.1f} s"
        assert asked <= COMMANDS_A_CONNECT * count + 20, f"{asked / count:.1f} a connect"
        scene.finish()
        assert scene.is_connected()


def test_everybody_resumes_from_the_start_while_events_go_on(stage: Stage):
    """8 clients a site with 1,600 events each here; more of both in the soak."""
    behind, clients = 1600, 8
    with stage.scene(rate=50) as scene:
        cursor = scene.browsers[0].of_type("stream-open")[0].last_event_id
        for _ in range(behind // 200):
            # No faster than the backlogs of those who are live.
            scene.burst(200)
            scene.wait_complete(5)
        before = commands(scene.admin)
        sends = len(scene.sender.took) + len(scene.other.took)

        late = [
            site.browser(scene.room, last_event_id=cursor)
            for site in stage.sites
            for _ in range(clients)
        ]
        for browser in late:
            browser.wait_for(behind, 20)
        asked = commands(scene.admin) - before
        sends = len(scene.sender.took) + len(scene.other.took) - sends

        pages = math.ceil(len(scene.sender.sent) / PAGE_EVENTS)
        most = len(late) * (COMMANDS_A_CONNECT + pages) + sends
        assert asked <= most + 20, f"{asked} commands, {most} allowed"
        scene.browsers += late
        scene.finish()
        assert scene.is_connected()
        assert all(b"stream-reset" not in browser.body for browser in late)


def test_a_reload_of_every_page_at_once(scene: Scene):
    """All clients are cut in one moment, again and again."""
    for n in range(4):
        for browser in [*scene.browsers, *scene.bystanders]:
            browser.cut(reset=n % 2 == 0)
        scene.burst(10)
        for browser in [*scene.browsers, *scene.bystanders]:
            browser.wait_for(lambda b, n=n: b.opens >= n + 2, 5, "it is back")
    scene.wait_complete(2)
    scene.finish()
    for browser in scene.browsers:
        assert browser.connects >= 5
