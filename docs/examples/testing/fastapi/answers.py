from fastapi import FastAPI
from streamy_redis import AsyncStreamManager

streams = AsyncStreamManager()
app = FastAPI(lifespan=streams.lifespan)


@app.get("/events/{answer}")
async def events(answer: str):
    return streams.get_stream(answer)


@app.post("/answers/{answer}")
async def write(answer: str):
    async with streams.writer(answer) as writer:
        for word in ("to ", "be ", "or ", "not"):
            await writer.write(word)
