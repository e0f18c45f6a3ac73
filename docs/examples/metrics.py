import os
import shutil
import time

from streamy_redis import Event, StreamConfig, StreamManager

# The newest of each is enough.
with StreamManager(config=StreamConfig(history_length=2)) as streams:
    while True:
        disk = shutil.disk_usage("/")
        load = Event(os.getloadavg()[0], "load")
        used = Event(round(100 * disk.used / disk.total), "disk")
        streams.send_events("dashboard", [load, used])
        time.sleep(1)
