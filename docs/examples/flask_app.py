from flask import Flask
from streamy_redis import StreamManager

app = Flask(__name__)
streams = StreamManager(app=app)


@app.get("/events/<stream_id>")
def events(stream_id):
    return streams.get_stream(stream_id)
