from flask import Flask, request
from streamy_redis import StreamManager

app = Flask(__name__)
streams = StreamManager(app=app)  # reads the variable REDIS_URL by itself


@app.get("/stream")
def stream():
    return streams.get_stream(request.args.get("channel", "sse"))


@app.post("/greet")
def greet():
    streams.send_event("sse", {"text": "hello"}, "greeting")
    return "sent"
