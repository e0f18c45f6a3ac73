from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from streamy_redis import AsyncStreamManager

streams = AsyncStreamManager()
app = FastAPI(lifespan=streams.lifespan)
app.mount("/static", StaticFiles(directory="static"))


@app.get("/events/{stream_id}")
async def events(stream_id: str):
    return streams.get_stream(stream_id)
