"""The web app: starts jobs, streams their progress, and ends the streams of lost ones."""

import threading
import uuid
from contextlib import suppress

from flask import Flask, abort, request, send_file
from jobs import WAIT, end, end_lost_jobs, report, streams, work

from streamy_redis import RedisUnavailable

app = Flask(__name__)
streams.init_app(app)
# In every web worker: whoever is first is enough, and as long as a page is served, it is watched.
threading.Thread(target=end_lost_jobs, daemon=True).start()


@app.get("/")
def page():
    return send_file("page.html")


@app.post("/jobs")
def start():
    job_id = uuid.uuid4().hex
    report(job_id, 0, "waiting for a worker", within=WAIT)
    work.apply_async((20, request.args.get("fails_at", type=int)), task_id=job_id)
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
