import httpx
import pytest
from answers import app
from streamy_redis.testing import open_stream


@pytest.fixture
def anyio_backend():
    return "asyncio"


@pytest.mark.anyio
async def test_a_page_sees_the_whole_answer(streamy_redis_url):
    transport = httpx.ASGITransport(app=app)
    async with (
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
        open_stream(client, "/events/answer-3") as stream,
    ):
        await client.post("/answers/answer-3")
        *pieces, _ = await stream.collect_to_end()
        assert "".join(piece.data for piece in pieces) == "to be or not"
