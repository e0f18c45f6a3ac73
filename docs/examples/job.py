from streamy_redis import StreamManager

with StreamManager() as streams:
    for percent in range(0, 101, 10):
        streams.send_event("report-7", {"percent": percent}, "progress")
