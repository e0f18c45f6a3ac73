from flask import Flask, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from streamy_redis import StreamManager
from streamy_redis.prometheus import observe

app = Flask(__name__)
streams = StreamManager(app=app)
observe(streams)


@app.get("/events/<stream_id>")
def events(stream_id):
    return streams.get_stream(stream_id)


@app.get("/metrics")
def metrics():
    registry = CollectorRegistry()
    MultiProcessCollector(registry)
    return Response(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
