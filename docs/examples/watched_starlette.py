from prometheus_client import make_asgi_app
from starlette.applications import Starlette
from starlette.routing import Mount, Route
from streamy_redis import AsyncStreamManager
from streamy_redis.prometheus import observe

streams = AsyncStreamManager()
observe(streams)


async def events(request):
    return streams.get_stream(request.path_params["stream_id"])


app = Starlette(
    routes=[Route("/events/{stream_id}", events), Mount("/metrics", make_asgi_app())],
    lifespan=streams.lifespan,
)
