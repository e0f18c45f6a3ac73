import os

from flask import Flask, abort, request
from itsdangerous import BadData, URLSafeTimedSerializer
from streamy_redis import StreamManager

app = Flask(__name__)
streams = StreamManager(app=app)
tokens = URLSafeTimedSerializer(os.environ["SECRET_KEY"], salt="read a stream")


def address_of(stream_id):
    """For a page whose user you have checked: what its EventSource opens."""
    return f"/events?token={tokens.dumps(stream_id)}"


@app.get("/events")
def events():
    try:
        stream_id = tokens.loads(request.args.get("token", ""), max_age=8 * 3600)
    except BadData:
        abort(403)
    return streams.get_stream(stream_id)
