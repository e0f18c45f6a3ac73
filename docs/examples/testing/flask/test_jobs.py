from streamy_redis.testing import open_stream


def test_a_page_sees_each_step(client):
    with open_stream(client, "/events/job-1") as stream:
        client.post("/jobs/job-1")
        client.post("/jobs/job-1")
        assert [event.json()["percent"] for event in stream.collect(2, timeout=2)] == [10, 20]


def test_a_page_that_was_offline_sees_what_it_missed(client):
    with open_stream(client, "/events/job-2") as stream:
        stream.close()
        client.post("/jobs/job-2")
        stream.reconnect()
        assert [event.name for event in stream.collect(1)] == ["progress"]


def test_a_page_is_told_of_a_lost_history_and_can_load_the_state(client, streamy_redis_server):
    with open_stream(client, "/events/job-3") as stream:
        client.post("/jobs/job-3")
        stream.collect(1)
        streamy_redis_server.lose_history()
        stream.reconnect()
        assert [event.name for event in stream.collect(1)] == ["stream-reset"]
        assert client.get("/jobs/job-3").json == {"percent": 10}


def test_a_page_stays_open_while_redis_is_away(client, streamy_redis_server):
    with open_stream(client, "/events/job-4") as stream:
        with streamy_redis_server.away():
            assert client.post("/jobs/job-4").status_code == 503
        client.post("/jobs/job-4")
        assert [event.json()["percent"] for event in stream.collect(1)] == [20]
