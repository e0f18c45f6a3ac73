"""Requests on asyncio that come to nothing: none of them leaves a subscriber behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import pytest

from streamy_redis import AsyncStreamManager, StreamConfig
from streamy_redis.asyncio.stream import Stream

Message = MutableMapping[str, Any]
LIMIT = 5


class Interruption(BaseException):
    """As KeyboardInterrupt: no Exception."""


def scope(method: str = "GET") -> dict[str, Any]:
    return {"type": "http", "method": method, "headers": [], "query_string": b""}


async def stay() -> Message:
    return await asyncio.get_running_loop().create_future()


async def hear(message: Message) -> None:
    pass


def in_a_loop(
    redis_url: str, prefix: str, main: Callable[[AsyncStreamManager], Awaitable[None]]
) -> None:
    async def run() -> None:
        config = StreamConfig(prefix=prefix, max_subscribers=LIMIT)
        async with AsyncStreamManager(redis_url, config=config) as streams:
            await main(streams)
            assert streams.stats().subscribers == 0
            assert streams.stats().refused == 0

    asyncio.run(run())


@pytest.mark.parametrize("error", [ValueError, OSError, Interruption, asyncio.CancelledError])
@pytest.mark.parametrize("at", ["http.response.start", "http.response.body"])
def test_nothing_is_left_when_a_server_refuses_a_message(
    redis_url: str, prefix: str, at: str, error: type[BaseException]
):
    async def refuse(message: Message) -> None:
        if message["type"] == at:
            raise error

    async def main(streams: AsyncStreamManager) -> None:
        for _ in range(LIMIT + 1):
            serving = streams.get_stream("room")(scope(), stay, refuse)
            try:
                await asyncio.wait_for(serving, 5)
            except error:
                pass

    in_a_loop(redis_url, prefix, main)


@pytest.mark.parametrize("moment", ["add", "has_nothing_to_say"])
def test_nothing_is_left_of_a_request_that_is_interrupted(
    redis_url: str, prefix: str, moment: str, monkeypatch: pytest.MonkeyPatch
):
    original = getattr(Stream, moment)

    def interrupted(stream: Stream, *arguments: object) -> Any:
        (original.fget if isinstance(original, property) else original)(stream, *arguments)
        raise Interruption

    replaced = property(interrupted) if isinstance(original, property) else interrupted
    monkeypatch.setattr(Stream, moment, replaced)

    async def main(streams: AsyncStreamManager) -> None:
        for _ in range(LIMIT + 1):
            with pytest.raises(Interruption):
                await streams.get_stream("room")(scope(), stay, hear)

    in_a_loop(redis_url, prefix, main)


def test_nothing_is_left_of_a_request_that_is_cancelled_while_it_opens(
    redis_url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
):
    opening = asyncio.Event()

    async def wait_open(stream: Stream) -> None:
        opening.set()
        await stay()

    monkeypatch.setattr(Stream, "wait_open", wait_open)

    async def main(streams: AsyncStreamManager) -> None:
        for _ in range(LIMIT + 1):
            opening.clear()
            serving = asyncio.ensure_future(streams.get_stream("room")(scope(), stay, hear))
            await opening.wait()
            serving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await serving

    in_a_loop(redis_url, prefix, main)


def test_a_refusal_that_can_not_be_said_is_none_of_the_open_ones(redis_url: str, prefix: str):
    async def refuse(message: Message) -> None:
        raise ValueError("refused")

    async def main() -> None:
        config = StreamConfig(prefix=prefix, max_subscribers=1)
        async with AsyncStreamManager(redis_url, config=config) as streams:
            opened = asyncio.Event()

            async def note(message: Message) -> None:
                if message["type"] == "http.response.body":
                    opened.set()

            first = asyncio.ensure_future(streams.get_stream("room")(scope(), stay, note))
            await opened.wait()
            for _ in range(3):
                with pytest.raises(ValueError, match="refused"):
                    await streams.get_stream("room")(scope(), stay, refuse)

            assert streams.stats().subscribers == 1
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            assert streams.stats().subscribers == 0

    asyncio.run(main())
