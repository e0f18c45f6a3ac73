"""max_subscribers, max_lifetime, slow clients and clients that never read."""

from __future__ import annotations

import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import psutil
import pytest

from tests.deadline import Deadline
from tests.exactly_once import Delivery, SentLog
from tests.sites import Site
from tests.web_servers import http

KINDS = ["gunicorn-gthread", "gunicorn-gevent", "uvicorn"]


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_subscribers_are_503_with_a_random_retry_after(
    new_site: Callable[..., Site], room: str, kind: str
):
    site = new_site(kind, max_subscribers=2)
    url = site.server.stream_url("events", room)
    first, second = site.browser(room).wait_open(), site.browser(room).wait_open()

    answers = [http.get(url, timeout=5) for _ in range(12)]

    assert {answer.status_code for answer in answers} == {503}
    waits = {int(answer.headers["retry-after"]) for answer in answers}
    assert min(waits) >= 1
    assert len(waits) > 1, "random, so that they don't come back together"
    assert site.browser(room).wait_closed().statuses == [503]
    site.streams.send_event(room, "x")
    for undisturbed in (first, second):
        assert undisturbed.wait_for(1).connects == 1
    assert http.head(url, timeout=5).status_code == 200

    first.close()

    def is_let_in() -> bool:
        with site.browser(room) as browser:
            return browser.wait_for(lambda b: b.statuses, 5).statuses == [200]

    Deadline(8).until(is_let_in, "there is room again", every=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_ends_its_connection_whatever_the_client_does(
    new_site: Callable[..., Site], room: str, kind: str
):
    site = new_site(kind, max_subscribers=1)
    site.browser(room).wait_open()
    path = urlsplit(site.server.stream_url("events", room)).path
    request = f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

    # gunicorn keeps a connection for 2 s, and waits as long for a client to close one.
    with socket.create_connection(("127.0.0.1", site.server.port), timeout=1) as client:
        client.sendall(request)
        answer = client.makefile("rb").read().lower()

    assert answer.startswith(b"http/1.1 503 ")
    assert answer.count(b"\r\nconnection: close\r\n") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_stream_raises_a_soft_limit_of_descriptors(
    new_site: Callable[..., Site], room: str, kind: str
):
    site = new_site(kind)
    (worker,) = site.server.workers()
    worker.rlimit(psutil.RLIMIT_NOFILE, (64, 1024))

    site.browser(room).wait_open()

    assert worker.rlimit(psutil.RLIMIT_NOFILE) == (1024, 1024)


@pytest.mark.parametrize("kind", KINDS)
def test_max_lifetime_cuts_a_response_and_the_client_resumes(
    new_site: Callable[..., Site], room: str, kind: str
):
    site = new_site(kind, max_lifetime=1.0)
    browser = site.browser(room).wait_open()
    sent = SentLog()

    while browser.opens < 3 and len(sent) < 1000:
        sent.returned(site.streams.send_event(room, str(len(sent))), str(len(sent)))
        Deadline(0.01).stays(lambda: True)

    browser.wait_for(len(sent))
    assert "clean" not in browser.ends[:2]
    Delivery(sent, browser.events).assert_exactly_once()


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_client_is_sent_away_and_loses_nothing(
    new_site: Callable[..., Site], room: str, kind: str
):
    site = new_site(kind, max_backlog_bytes=200_000)
    slow = site.browser(room, receive_buffer=4096).wait_open()
    quick = site.browser(room).wait_open()
    sent = SentLog()
    slow.pause()

    for n in range(150):
        data = f"{n} " + "x" * 100_000
        sent.returned(site.streams.send_event(room, data), data)
        quick.wait_for(n + 1)
    slow.go_on()

    slow.wait_for(150, 20)
    assert slow.opens >= 2, "its backlog was bounded"
    assert quick.opens == 1
    for browser in (slow, quick):
        Delivery(sent, browser.events).assert_exactly_once()


@pytest.mark.parametrize("kind", ["uvicorn", "gunicorn-gthread"])
def test_a_client_that_never_reads_is_let_go_after_write_timeout(
    new_site: Callable[..., Site], room: str, kind: str
):
    site = new_site(kind, write_timeout=0.5, max_backlog=100_000, max_backlog_bytes=1 << 30)
    stuck = site.browser(room, receive_buffer=4096).wait_open()
    stuck.pause()

    for _ in range(15):
        site.streams.send_event(room, "x" * 1_000_000)

    # Whether its socket can be closed too is the server's business: here the channel is left.
    Deadline(6).until(lambda: site.subscribed(room) == 0, "the subscriber is let go")
    stuck.go_on()
    stuck.wait_for(15, 20)
    assert [len(data) for data in stuck.data] == [1_000_000] * 15
    assert stuck.opens >= 2


@pytest.mark.parametrize(("kind", "streams"), [("gunicorn-sync", 1), ("gunicorn-gthread", 40)])
def test_a_worker_that_has_no_thread_left_warns_once(
    new_site: Callable[..., Site], room: str, kind: str, streams: int
):
    site = new_site(kind, handover=False)
    others = [site.browser(f"{room} {n}").wait_open() for n in range(streams - 1)]

    assert "take every thread" not in site.server.output
    site.browser(room).wait_open()

    Deadline(2).until(lambda: "take every thread" in site.server.output)
    if others:
        others[0].close()
        site.browser(room).wait_open(5)
    assert site.server.output.count("take every thread") == 1
