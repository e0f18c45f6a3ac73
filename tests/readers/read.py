"""Reads a stream with a Python library and prints each event as a line of JSON, until a 204.

python read.py LIBRARY URL

These libraries read one response; who uses them comes back with the last id.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator

import httpx
import httpx_sse
import sseclient

# Name, data, id, and the reconnection time in ms where it was told.
Event = tuple[str, str, str, int | None]


def with_httpx_sse(response: httpx.Response) -> Iterator[Event]:
    for event in httpx_sse.EventSource(response).iter_sse():
        yield event.event, event.data, event.id, event.retry


def with_sseclient(response: httpx.Response) -> Iterator[Event]:
    for event in sseclient.SSEClient(until_cut(response)).events():
        yield event.event, event.data, event.id, event.retry and int(event.retry)


def until_cut(response: httpx.Response) -> Iterator[bytes]:
    """The bytes, then an error: at a plain end SSEClient makes an event of what was cut off."""
    yield from response.iter_bytes()
    raise httpx.ReadError("the response has ended")


READERS: dict[str, Callable[[httpx.Response], Iterator[Event]]] = {
    "httpx-sse": with_httpx_sse,
    "sseclient-py": with_sseclient,
}


def main(library: str, url: str) -> None:
    last_event_id, pause = "", 1.0
    # As long as keep-alives can be apart, and more.
    with httpx.Client(timeout=30) as client:
        while True:
            headers = {"Accept": "text/event-stream"}
            if last_event_id:
                headers["Last-Event-ID"] = last_event_id
            try:
                with client.stream("GET", url, headers=headers) as response:
                    if response.status_code == 204:
                        return
                    for name, data, last_event_id, retry in READERS[library](response):
                        print(json.dumps([name, data, last_event_id]), flush=True)
                        pause = pause if retry is None else retry / 1000
            except httpx.TransportError:
                pass  # cut: what came is printed
            time.sleep(pause)


if __name__ == "__main__":
    main(*sys.argv[1:])
