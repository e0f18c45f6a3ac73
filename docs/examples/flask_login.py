import os

from flask import Flask, abort, session
from streamy_redis import StreamManager

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]
streams = StreamManager(app=app)
MEMBERS = {"team-7": {"ada", "grace"}}  # in your database


@app.get("/events/<stream_id>")
def events(stream_id):
    if session.get("user") not in MEMBERS.get(stream_id, ()):
        abort(403)
    return streams.get_stream(stream_id)


@app.get("/inbox")
def inbox():
    if "user" not in session:
        abort(403)
    return streams.get_stream(f"inbox:{session['user']}")
