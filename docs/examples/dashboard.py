from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from streamy_redis import AsyncStreamManager

streams = AsyncStreamManager()
app = FastAPI(lifespan=streams.lifespan)
app.mount("/static", StaticFiles(directory="static"))


@app.get("/dashboard")
async def dashboard():
    return streams.get_stream("dashboard", replay=2)  # one of each
