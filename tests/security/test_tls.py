"""TLS and a password through the URL, on a server that speaks nothing else."""

from __future__ import annotations

import asyncio
import gc
import signal
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from streamy_redis import AsyncStreamManager, RedisUnavailable, StreamConfig, StreamManager
from tests.certificate import Certificate
from tests.child import Child, new_folder
from tests.deadline import Deadline
from tests.ports import free_port
from tests.servers import installed_binary

PASSWORD = "p@ss/w:rd"
# Of those who are refused.
CONFIG = StreamConfig(send_timeout=1, max_retries=1)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return Certificate.made_in(tmp_path_factory.mktemp("certificate"), "localhost")


@pytest.fixture(scope="module")
def server(certificate: Certificate) -> Iterator[tuple[Child, int]]:
    binary = installed_binary()
    if b"libssl" not in Path(binary).resolve().read_bytes():
        pytest.skip("redis-server with TLS is not on PATH")
    port = free_port()
    folder = new_folder("redis-server")
    server = Child(
        [
            *(binary, "--port", "0", "--tls-port", str(port), "--bind", "127.0.0.1", "--save", ""),
            *("--tls-cert-file", certificate.certificate, "--tls-key-file", certificate.key),
            *("--tls-ca-cert-file", certificate.authority),
            *("--tls-auth-clients", "no", "--requirepass", PASSWORD, "--dir", str(folder)),
        ],
        folder / "log",
    )
    Deadline(10).until(lambda: "Ready to accept connections" in server.output, server.output)
    yield server, port
    server.stop()


@pytest.fixture
def url(server: tuple[Child, int], certificate: Certificate) -> str:
    _, port = server
    return f"rediss://:p%40ss%2Fw%3Ard@localhost:{port}/0?ssl_ca_certs={certificate.authority}"


def test_threads_send_and_receive(url: str):
    with StreamManager(url) as streams, streams.subscribe("a") as events:
        event_id = streams.send_event("a", "x")
        assert next(iter(events)).id == event_id


# More than one record of TLS holds (16 KB), so that some is at hand when the socket shows nothing.
MANY = ["x" * 1000] * 100


def test_threads_hear_what_comes_in_one_burst(url: str):
    with StreamManager(url) as streams, streams.subscribe("burst") as events:
        ids = streams.send_events("burst", MANY)
        assert [event.id for _, event in zip(ids, events, strict=False)] == ids


def test_asyncio_hears_what_comes_in_one_burst(url: str):
    async def main() -> None:
        manager = AsyncStreamManager(url)
        async with manager as streams, streams.subscribe("other burst") as events:
            ids = await streams.send_events("other burst", MANY)
            assert [(await anext(events)).id for _ in ids] == ids

    asyncio.run(main())


def test_asyncio_sends_and_receives(url: str):
    async def main() -> None:
        manager = AsyncStreamManager(url)
        async with manager as streams, streams.subscribe("b") as events:
            event_id = await streams.send_event("b", "x")
            assert (await anext(aiter(events))).id == event_id

    asyncio.run(main())


def test_asyncio_leaves_no_socket_to_a_redis_that_does_not_say_goodbye(
    url: str, server: tuple[Child, int]
):
    child, _ = server

    async def main() -> None:
        async with AsyncStreamManager(url) as streams, streams.subscribe("d"):
            await streams.send_event("d", "x")
            child.signal(signal.SIGSTOP)

    try:
        asyncio.run(main())
    finally:
        child.signal(signal.SIGCONT)

    with warnings.catch_warnings(record=True) as left:
        warnings.simplefilter("always")
        gc.collect()
    assert [str(warning.message) for warning in left] == []


@pytest.mark.parametrize("wrong", ["authority", "host name"])
def test_a_certificate_that_does_not_hold_is_refused(url: str, wrong: str):
    without_authority = url.partition("?")[0]
    by_address = url.replace("localhost", "127.0.0.1")
    manager = StreamManager(
        without_authority if wrong == "authority" else by_address, config=CONFIG
    )

    with manager as streams, pytest.raises(RedisUnavailable, match=r"certificate") as refused:
        streams.send_event("c", "x")

    assert "p%40ss" not in str(refused.value)
    assert PASSWORD not in str(refused.value)
