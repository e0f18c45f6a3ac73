"""The boards, started once for all tests of a module: each has a stream of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers import RedisServer

from .board_stack import Boards


@pytest.fixture(scope="module")
def running_boards(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boards]:
    with RedisServer() as redis_server:
        boards = Boards(redis_server, tmp_path_factory.mktemp("boards"))
        yield boards
        boards.close()


@pytest.fixture
def boards(running_boards: Boards) -> Iterator[Boards]:
    yield running_boards
    running_boards.leave()
