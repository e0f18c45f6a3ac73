from streamy_redis.testing import open_stream


def test_a_page_sees_the_whole_answer(client):
    with open_stream(client, "/events/answer-1") as stream:
        client.post("/answers/answer-1")
        *pieces, end = stream.collect_to_end()
        assert "".join(piece.data for piece in pieces) == "to be or not"
        assert end.json() == {"reason": "done"}


def test_a_page_that_has_seen_the_end_is_told_to_stop(client):
    with open_stream(client, "/events/answer-2") as stream:
        client.post("/answers/answer-2")
        stream.collect_to_end()
        stream.reconnect()
        assert stream.status == 204
