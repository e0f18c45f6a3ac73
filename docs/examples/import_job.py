import sys

from streamy_redis import StreamManager

rows = sys.stdin.readlines()
total = 0
with StreamManager() as streams:
    reason = "failed"
    try:
        for done, row in enumerate(rows, start=1):
            total += int(row)  # the work
            streams.send_event("import-7", {"percent": 100 * done // len(rows)}, "progress")
        reason = "done"
    finally:
        streams.end_stream("import-7", {"reason": reason, "total": total})
