from fastapi import FastAPI
from streamy_redis import AsyncStreamManager

streams = AsyncStreamManager()
app = FastAPI(lifespan=streams.lifespan)


@app.get("/events/{stream_id}")
async def events(stream_id: str):
    return streams.get_stream(stream_id)
