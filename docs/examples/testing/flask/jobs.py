from flask import Flask
from streamy_redis import RedisUnavailable, StreamManager

app = Flask(__name__)
streams = StreamManager(app=app)
percent = {}  # in your database


@app.get("/events/<job>")
def events(job):
    return streams.get_stream(job)


@app.get("/jobs/<job>")
def state(job):
    return {"percent": percent[job]}


@app.post("/jobs/<job>")
def step(job):
    percent[job] = percent.get(job, 0) + 10
    streams.send_event(job, {"percent": percent[job]}, "progress")
    return "sent"


@app.errorhandler(RedisUnavailable)
def redis_unavailable(error):
    return "stored, but pages don't know yet", 503
