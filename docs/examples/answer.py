from flask import Flask
from streamy_redis import StreamManager

app = Flask(__name__)
streams = StreamManager(app=app)


def write_answer(answer_id, tokens):
    """In the job that asks the model."""
    with streams.writer(answer_id) as answer:
        for token in tokens:
            answer.write(token)


@app.get("/answers/<answer_id>")
def answer(answer_id):
    return streams.get_stream(answer_id, replay="all")
