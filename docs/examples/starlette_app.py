from starlette.applications import Starlette
from starlette.routing import Route
from streamy_redis import AsyncStreamManager

streams = AsyncStreamManager()


async def events(request):
    return streams.get_stream(request.path_params["stream_id"])


app = Starlette(routes=[Route("/events/{stream_id}", events)], lifespan=streams.lifespan)
