"""What many clients and streams leave and cost: connections, threads, descriptors."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

import psutil
import pytest

from tests.deadline import Deadline
from tests.servers import RedisServer
from tests.sites import Site
from tests.web_servers import http


def redis_connections(pid: int, port: int) -> set[int]:
    """The local ports of a process's connections to a server."""
    return {
        connection.laddr.port
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.raddr and connection.raddr.port == port and connection.status == "ESTABLISHED"
    }


@pytest.mark.parametrize("kind", ["gunicorn-gevent", "uvicorn"])
def test_a_process_with_100_open_streams_has_one_feed_and_four_more_connections(
    new_site: Callable[..., Site], redis_server: RedisServer, room: str, kind: str
):
    site = new_site(kind, url=redis_server.url)
    store = redis_server.connect()
    browsers = [site.browser(f"{room} {n}") for n in range(100)]
    for browser in browsers:
        browser.wait_open()
    # Its own senders at work too, more of them than there are connections.
    threads = [
        threading.Thread(target=browser_send, args=(site, f"{room} {n}")) for n in range(0, 100, 5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)

    (worker,) = site.server.workers()
    ports = redis_connections(worker.pid, redis_server.port)
    clients = [c for c in store.client_list() if int(c["addr"].rpartition(":")[2]) in ports]
    feeds = [client for client in clients if int(client["sub"]) > 0]
    assert [int(feed["sub"]) for feed in feeds] == [100]
    assert len(clients) - len(feeds) <= 4
    store.close()


def browser_send(site: Site, stream_id: str) -> None:
    for _ in range(3):
        http.post(site.server.stream_url("send", stream_id), content="x").raise_for_status()


def visit(url: str, count: int) -> None:
    """Connect that many clients, see each stream open, and leave."""
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    path = "/" + url.removeprefix("http://").partition("/")[2]
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(count):
            client = stack.enter_context(socket.create_connection((host, int(port)), timeout=10))
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            clients.append(client)
        for client in clients:
            received = b""
            while b"event: stream-open\ndata: {}\n" not in received:
                chunk = client.recv(4096)
                assert chunk, received
                received += chunk


def test_1000_connects_and_disconnects_leave_nothing_behind(
    new_site: Callable[..., Site], redis_server: RedisServer, room: str
):
    """Under gevent; of gthread and uvicorn tests/faults/test_clients.py says so."""
    at_once = 200
    site = new_site("gunicorn-gevent", url=redis_server.url, keep_alive_interval=0.1)
    url = site.server.stream_url("events", room)
    store = redis_server.connect()

    def held() -> dict[str, int]:
        told = site.server.get_json("/worker")
        counts = {key: told[key] for key in ("threads", "fds", "tasks", "greenlets") if key in told}
        return {**counts, "clients": len(store.client_list())}

    def is_back(start: dict[str, int]) -> bool:
        now = held()
        return all(now[key] <= start[key] for key in start)

    # Once before, for what a process makes once and keeps.
    site.make_all_threads()
    visit(url, at_once)
    Deadline(10).until(lambda: site.subscribed(room) == 0, "the first have gone")
    start = held()
    for _ in range(1000 // at_once):
        visit(url, at_once)

    Deadline(15).until(lambda: site.subscribed(room) == 0, "all have gone")
    Deadline(10).until(lambda: is_back(start), lambda: (start, held()), every=0.1)
    store.close()
