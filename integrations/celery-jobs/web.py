"""The web app: starts jobs, streams their progress, and ends the streams of lost ones."""

import sys
import threading
import uuid
from pathlib import Path

from flask import Flask, Response, abort, request, send_file
from jobs import WAIT, end, end_lost_jobs, report, streams, work

from streamy_redis import RedisUnavailable

sys.path.append(str(Path(__file__).resolve().parents[1]))

from same_origin import refusal

app = Flask(__name__)
streams.init_app(app)
# In every web worker: whoever is first is enough, and as long as a page is served, it is watched.
threading.Thread(target=end_lost_jobs, daemon=True).start()


@app.before_request
def refuse_other_sites():
    return (reason, 403) if (reason := refusal(request.method, request.headers)) else None


@app.get("/")
def page():
    return send_file("page.html")


@app.post("/jobs")
def start():
    job_id = uuid.uuid4().hex
    report(job_id, 0, "waiting for a worker", within=WAIT)
    fails_at = request.args.get("fails_at", type=int)
    # It expires with its promise: no worker takes a job that was given up.
    work.apply_async((20, fails_at), task_id=job_id, expires=WAIT)
    return {"id": job_id}, 202


@app.get("/jobs/<job_id>/events")
def events(job_id: str):
    try:
        if not streams.info(job_id).exists:
            abort(404)  # never started, or long over
    except RedisUnavailable:
        # The page asks again; a 503 would stop it, and a blank line would cost its cursor.
        return Response("retry: 2000\n", mimetype="text/event-stream")
    return streams.get_stream(job_id, replay="all")


@app.delete("/jobs/<job_id>")
def cancel(job_id: str):
    end(job_id, reason="cancelled")  # the job's next report raises StreamEnded
    return "", 204
