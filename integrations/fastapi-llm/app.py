"""The web app: takes a prompt, streams its answer to any number of pages, and cancels it."""

import json
import sys
import uuid
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

from fastapi import Body, FastAPI, HTTPException, Response
from fastapi.responses import FileResponse
from shared import QUEUE, store, streams

from streamy_redis import RedisUnavailable

sys.path.append(str(Path(__file__).resolve().parents[1]))

from same_origin import SameOriginMiddleware


@asynccontextmanager
async def lifespan(app: FastAPI):
    async with streams, store:
        yield


app = FastAPI(lifespan=lifespan)
app.add_middleware(SameOriginMiddleware)


@app.get("/")
async def page():
    return FileResponse(Path(__file__).with_name("page.html"))


@app.post("/answers", status_code=202)
async def ask(prompt: Annotated[str, Body(embed=True, min_length=1, max_length=500)]):
    answer_id = uuid.uuid4().hex
    await streams.send_event(answer_id, prompt, "prompt")
    await store.rpush(QUEUE, json.dumps([answer_id, prompt]))
    return {"id": answer_id}


@app.get("/answers/{answer_id}")
async def read(answer_id: str):
    try:
        if not (await streams.info(answer_id)).exists:
            raise HTTPException(404)  # never asked, or long over
    except RedisUnavailable:
        # The page asks again; a 503 would stop it, and a blank line would cost its cursor.
        return Response("retry: 2000\n", media_type="text/event-stream")
    return streams.get_stream(answer_id, replay="all")


@app.delete("/answers/{answer_id}")
async def cancel(answer_id: str):
    # The generator's next write raises StreamEnded.
    return {"cancelled": await streams.end_stream(answer_id, {"reason": "cancelled"})}
