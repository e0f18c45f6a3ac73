import os
from collections import defaultdict

from flask import Flask, abort, render_template, request, session
from streamy_redis import StreamManager

app = Flask(__name__)
app.secret_key = os.environ["SECRET_KEY"]
streams = StreamManager(app=app)
UNREAD = defaultdict(dict)  # in your database: the texts of each user, by number


def notify(user, number, text):
    UNREAD[user][number] = text  # first what lasts,
    streams.send_event(f"user:{user}", {"number": number, "text": text})  # then who looks now


@app.get("/")
def page():
    user = session.get("user") or abort(403)
    cursor = streams.info(f"user:{user}").last_event_id or ""  # first the cursor,
    unread = UNREAD[user]  # then what the page shows
    return render_template("notifications.html", cursor=cursor, unread=unread)


@app.get("/notifications")
def notifications():
    user = session.get("user") or abort(403)
    # Without a cursor there was no history yet: all that there is now is newer than the page.
    cursor = request.args.get("cursor")
    return streams.get_stream(f"user:{user}", last_event_id=cursor, replay="all")
