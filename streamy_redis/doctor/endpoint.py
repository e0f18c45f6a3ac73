"""An endpoint: whether what a browser would open really streams."""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from time import monotonic

from ..config import StreamConfig
from ..exceptions import RedisUnavailable, StreamEnded
from ..sync.manager import StreamManager
from .finding import Finding, Level, note, ok, problem
from .response import EndpointResponse
from .server import spread

__all__ = ["EVENT_NAME", "checked_url", "examine_endpoint"]

# Pages get events only by the names that they listen to: nobody listens to this one.
EVENT_NAME = "streamy-redis-doctor"

# Seconds that the endpoint may take to answer: EventSource waits longer, people don't.
_ANSWER_TIMEOUT = 5.0
# Seconds within which an event that was sent has to arrive, and those that are still live.
_EVENT_TIMEOUT = 3.0
_LATE = 1.0
_ROUNDS = 5
# What is sent behind an event that doesn't arrive: more than proxies keep back (nginx: a buffer of
# 4 or 8 KiB, and zlib's window), in pieces, with seconds in between for them to come.
_PADDING = 8 * 1024
_MOST_PADDING = 64 * 1024
_PADDING_PAUSE = 0.2
# Events to keep: more than there can be, whatever the application keeps.
_NO_LIMIT = 2**53

_WITHOUT_PROXY = "Ask the application directly, without the proxy, to see which one it is."
_STATUS_ADVICE = {
    204: "The stream has ended for this cursor; without one it should answer 200.",
    400: "See the rule in the text; stream ids come from the URL.",
    401: "Log in as a page would: --header 'Cookie: …' or --header 'Authorization: …'.",
    403: "Log in as a page would: --header 'Cookie: …' or --header 'Authorization: …'.",
    404: "Is this the path of the view that returns get_stream()?",
    405: "The view has to take GET.",
    502: "The proxy can't reach the application: is it up, and where the proxy looks for it?",
    503: "Too many open streams (max_subscribers), or the proxy has no application to ask.",
    504: "The proxy has waited for the application in vain: does it have a free worker?",
}


class Sender:
    """Sends to the stream that the endpoint serves; remembers how much."""

    def __init__(self, streams: StreamManager, stream_id: str) -> None:
        self._streams = streams
        self.stream_id = stream_id
        self.padding = 0

    def send(self) -> str:
        """Text by which the event that was sent is known."""
        marker = secrets.token_hex(12)
        self._streams.send_event(self.stream_id, marker, EVENT_NAME)
        return marker

    def push(self, response: EndpointResponse, has_come: Callable[[], object]) -> bool:
        """Sends more and more behind what hasn't come; whether it came then."""
        while self.padding < _MOST_PADDING and not response.is_over:
            # Random: it has to stay that large when somebody compresses it.
            self._streams.send_event(
                self.stream_id, secrets.token_urlsafe(_PADDING * 3 // 4), EVENT_NAME
            )
            self.padding += _PADDING
            if response.wait(has_come, _PADDING_PAUSE):
                return True
        return False

    @property
    def pushed(self) -> str:
        return f"{self.padding // 1024} KiB of events"


def examine_endpoint(
    url: str,
    headers: Mapping[str, str],
    source: str | None,
    config: StreamConfig,
    stream_id: str | None,
) -> Iterator[Finding]:
    """Findings as they are made.

    A few events named EVENT_NAME are sent to the stream; where they don't arrive, up to 64 KiB
    of them. They trim nothing of its history, and don't shorten its time to live.

    Args:
        headers: of the request, such as a Cookie.
        source: the application's Redis; None if it can't be reached.
        config: with the application's prefix and history_ttl.
        stream_id: the stream that the URL serves; None where that isn't known.
    """
    with contextlib.ExitStack() as stack:
        response = stack.enter_context(contextlib.closing(EndpointResponse(url, headers)))
        try:
            sender = None
            if source is not None and stream_id is not None:
                config = _preserving(source, config, stream_id)
                streams = stack.enter_context(StreamManager(source, config=config))
                sender = Sender(streams, stream_id)
            yield from _examine(response, sender)
        except StreamEnded as exc:
            advice = "Take a stream that lives."
            yield problem("delivery", f"stream {exc.stream_id!r} has ended", advice)
        except RedisUnavailable as exc:
            advice = "See what is said of Redis above."
            yield problem("delivery", f"no event could be sent: {exc}", advice)


def _preserving(source: str, config: StreamConfig, stream_id: str) -> StreamConfig:
    """A configuration with which sending takes nothing away from the stream."""
    with StreamManager(source, config=config) as streams:
        ttl = streams.info(stream_id).ttl or 0.0
    return dataclasses.replace(
        config, history_length=_NO_LIMIT, history_ttl=max(config.history_ttl, ttl)
    )


def _examine(response: EndpointResponse, sender: Sender | None) -> Iterator[Finding]:
    if not response.wait(lambda: response.has_answered, _ANSWER_TIMEOUT) and sender is not None:
        sender.push(response, lambda: response.has_answered)
    if response.status is None:
        yield _no_answer(response, sender)
        return
    yield _examine_status(response)
    if response.status != 200:
        return
    yield from _examine_headers(response)
    if sender is not None and sender.padding:
        text = f"nothing came, not even the headers, until {sender.pushed} had been sent"
        yield problem("delivery", text, _unbuffer(response))
        return
    beginning = _examine_beginning(response)
    yield beginning
    if beginning.level is Level.PROBLEM and response.first_byte_after is not None:
        return
    if sender is not None:
        yield _examine_delivery(response, sender)
    else:
        text = "not tried, since it isn't known to which stream to send, or Redis is away"
        yield note("delivery", text, "Name the stream that the URL serves: --stream STREAM.")


def _no_answer(response: EndpointResponse, sender: Sender | None) -> Finding:
    if response.error is not None:
        text = f"the endpoint can't be reached: {response.error}"
        return problem("status", text, "Is the server up, are host, port and scheme right?")
    text = f"no answer within {_ANSWER_TIMEOUT:.0f} s"
    if sender is not None:
        text += f", nor after {sender.pushed}"
    advice = f"Something holds it back, or the application has no free worker. {_WITHOUT_PROXY}"
    return problem("status", text, advice)


def _examine_status(response: EndpointResponse) -> Finding:
    status = response.status or 0
    if status == 200:
        taken = response.answered_after or 0
        if taken < _LATE:
            return ok("status", f"200 after {taken * 1000:.0f} ms")
        text = f"200, but only after {taken:.1f} s, though a stream begins at once"
        return problem("status", text, f"Something holds it back. {_WITHOUT_PROXY}")
    if 300 <= status < 400:
        target = response.headers.get("location", "")
        text = f"{status}, which leads to {target}"
        return problem("status", text, "Examine that address, and let the page open it directly.")
    response.wait(lambda: False, 0.5)
    body = " ".join(response.text.split())[:120]
    advice = _STATUS_ADVICE.get(status, "See the application's log.")
    # EventSource gives up for good on anything but 200.
    return problem("status", f"{status}: {body}" if body else str(status), advice)


def _examine_headers(response: EndpointResponse) -> Iterator[Finding]:
    headers = response.headers
    content_type = headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() == "text/event-stream":
        yield ok("content-type", content_type)
    else:
        text = f"{content_type or 'none'}: EventSource refuses it and gives up"
        yield problem("content-type", text, "Return what get_stream() gives, as it is.")
    yield _examine_cache_control(headers.get("cache-control", ""))
    yield _examine_accel(headers.get("x-accel-buffering"), headers.get("server", ""))
    encoding = headers.get("content-encoding", "identity")
    if encoding.lower() == "identity":
        yield ok("content-encoding", "none")
    else:
        text = f"{encoding}: something compresses the stream, and may hold events back to do so"
        yield note("content-encoding", text, _COMPRESSION)
    if "content-length" in headers:
        text = f"{headers['content-length']}: this is a whole document, not a stream"
        yield problem("content-length", text, "Something has read the stream to its end first.")


def _examine_cache_control(value: str) -> Finding:
    directives = {part.strip().lower() for part in value.split(",")}
    advice = "get_stream() sends no-store, no-transform; something has changed it."
    if not directives & {"no-store", "no-cache"}:
        return note("cache-control", f"{value or 'none'}: a cache may keep the stream", advice)
    if "no-transform" not in directives:
        return note("cache-control", f"{value}: a proxy may compress the stream", advice)
    return ok("cache-control", value)


def _examine_accel(value: str | None, server: str) -> Finding:
    check = "x-accel-buffering"
    if value is None and "nginx" in server.lower():
        return ok(check, "taken out by nginx, which it is for")
    if value is None:
        return note(check, "none: a proxy has taken it out, or the application didn't send it")
    if value.strip().lower() != "no":
        return problem(check, f"{value}: asks nginx to buffer", "Leave it as get_stream() sets it.")
    return ok(check, value)


def _examine_beginning(response: EndpointResponse) -> Finding:
    check = "first byte"
    if not response.wait(lambda: "event: stream-open" in response.text, _ANSWER_TIMEOUT):
        return _no_beginning(check, response)
    return ok(check, f"after {(response.first_byte_after or 0) * 1000:.0f} ms, with stream-open")


def _no_beginning(check: str, response: EndpointResponse) -> Finding:
    if response.first_byte_after is None:
        text = f"none within {_ANSWER_TIMEOUT:.0f} s, though a stream begins at once"
        return problem(check, text, _unbuffer(response))
    if response.text.startswith("retry:") and "\n\n" not in response.text:
        text = "the stream opens and waits: the application can't reach its Redis"
        return problem(check, text, "See the application's log, and its STREAMY_REDIS_URL.")
    text = "there is no stream-open: this isn't a stream of streamy-redis"
    return note(check, text, "Is this the path of the view that returns get_stream()?")


def _examine_delivery(response: EndpointResponse, sender: Sender) -> Finding:
    check = "delivery"
    delays = []
    for _ in range(_ROUNDS):
        begin = monotonic()
        marker = sender.send()
        if not response.wait(_has(marker, response), _EVENT_TIMEOUT):
            return _not_delivered(check, response, sender, marker)
        delays.append(monotonic() - begin)
    text = f"an event that is sent now arrives after {spread(delays)}"
    if max(delays) > _LATE:
        return problem(check, text, f"Something collects events. {_unbuffer(response)}")
    return ok(check, text)


def _has(text: str, response: EndpointResponse) -> Callable[[], bool]:
    return lambda: text in response.text


def _not_delivered(check: str, response: EndpointResponse, sender: Sender, marker: str) -> Finding:
    if sender.push(response, _has(marker, response)):
        text = f"an event arrived only when {sender.pushed} had been sent behind it"
        return problem(check, text, _unbuffer(response))
    if response.is_over:
        text = f"the response ended before an event came: {response.error or 'without an error'}"
        return problem(check, text, f"See the application's log. {_WITHOUT_PROXY}")
    text = f"events sent to {sender.stream_id!r} don't arrive, even after {sender.pushed}"
    return problem(
        check,
        text,
        "Does the URL serve this stream, and its application use this Redis and prefix?",
    )


_COMPRESSION = (
    "Exclude text/event-stream from compression (gzip_types in nginx, GZipMiddleware, …)."
)


def _unbuffer(response: EndpointResponse) -> str:
    """What to do where something on the way holds events back."""
    if "content-encoding" in response.headers:
        return _COMPRESSION
    if "nginx" in response.headers.get("server", "").lower():
        return (
            "nginx buffers: set proxy_buffering off for this path, "
            "or take X-Accel-Buffering out of proxy_ignore_headers."
        )
    return f"Turn buffering off for this path where it is. {_WITHOUT_PROXY}"


def checked_url(url: str) -> str:
    """The URL as it was given.

    Raises:
        ValueError: it is no address of an endpoint.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("must be http://… or https://…")
    parts.port  # noqa: B018  # raises ValueError where it is no number
    return url
