from flask import Flask
from streamy_redis import StreamConfig, StreamManager

app = Flask(__name__)
streams = StreamManager(app=app, config=StreamConfig(max_subscribers=20))


@app.get("/events/<stream_id>")
def events(stream_id):
    return streams.get_stream(stream_id)
