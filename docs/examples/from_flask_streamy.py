from flask import Flask
from streamy_redis import StreamManager

app = Flask(__name__)
streams = StreamManager(app=app)


@app.get("/stream/<stream_id>")
def stream(stream_id):
    return streams.get_stream(stream_id)


@app.post("/greet/<stream_id>")
def greet(stream_id):
    streams.send_event(stream_id, "hello", "greeting")
    return "sent"
