"""The web app: starts jobs, streams their progress, and ends the streams of lost ones."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from contextlib import suppress

import redis
from flask import Flask, abort, request
from jobs import begin, end, end_lost_jobs, streams

from streamy_redis import RedisUnavailable

app = Flask(__name__, static_folder=".")
streams.init_app(app)


@app.get("/")
def page():
    return app.send_static_file("page.html")


@app.post("/jobs")
def start():
    job_id = uuid.uuid4().hex
    begin(job_id, 20, request.args.get("fails_at", type=int))
    return {"id": job_id}, 202


@app.get("/jobs/<job_id>/events")
def events(job_id: str):
    with suppress(RedisUnavailable):  # get_stream waits for Redis; a 503 would stop the page
        if not streams.info(job_id).exists:
            abort(404)  # never started, or long over
    return streams.get_stream(job_id, replay="all")


@app.delete("/jobs/<job_id>")
def cancel(job_id: str):
    end(job_id, reason="cancelled")  # the job's next report raises StreamEnded
    return {"cancelled": True}


def watch():
    while True:
        try:
            end_lost_jobs()
        except (redis.RedisError, RedisUnavailable) as exc:
            logging.warning("leases can't be read: %s", exc)
        time.sleep(1)


# In every web worker, since whoever is first is enough: as long as a page is served, it is watched.
threading.Thread(target=watch, daemon=True).start()
