import os

from itsdangerous import BadData, URLSafeTimedSerializer
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route
from streamy_redis import AsyncStreamManager

streams = AsyncStreamManager()
tokens = URLSafeTimedSerializer(os.environ["SECRET_KEY"], salt="read a stream")


def address_of(stream_id):
    """For a page whose user you have checked: what its EventSource opens."""
    return f"/events?token={tokens.dumps(stream_id)}"


async def events(request):
    try:
        stream_id = tokens.loads(request.query_params.get("token", ""), max_age=8 * 3600)
    except BadData:
        raise HTTPException(403) from None
    return streams.get_stream(stream_id)


app = Starlette(routes=[Route("/events", events)], lifespan=streams.lifespan)
