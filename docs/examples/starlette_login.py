import os

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.routing import Route
from streamy_redis import AsyncStreamManager

streams = AsyncStreamManager()
MEMBERS = {"team-7": {"ada", "grace"}}  # in your database


async def events(request):
    stream_id = request.path_params["stream_id"]
    if request.session.get("user") not in MEMBERS.get(stream_id, ()):
        raise HTTPException(403)
    return streams.get_stream(stream_id)


async def inbox(request):
    if "user" not in request.session:
        raise HTTPException(403)
    return streams.get_stream(f"inbox:{request.session['user']}")


app = Starlette(
    routes=[Route("/events/{stream_id}", events), Route("/inbox", inbox)],
    middleware=[Middleware(SessionMiddleware, secret_key=os.environ["SECRET_KEY"])],
    lifespan=streams.lifespan,
)
