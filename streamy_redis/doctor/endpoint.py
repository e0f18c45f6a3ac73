"""An endpoint: whether what a browser would open really streams."""

from __future__ import annotations

import contextlib
import secrets
import ssl
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from time import monotonic

from ..config import StreamConfig
from ..core.headers import validated_header
from ..exceptions import RedisUnavailable, StreamEnded
from ..sync.manager import StreamManager
from .finding import Finding, Level, note, ok, problem
from .response import EndpointResponse
from .sender import Sender
from .server import spread

__all__ = ["checked_header", "checked_url", "examine_endpoint"]

# Seconds that the endpoint may take to answer: EventSource waits longer, people don't.
_ANSWER_TIMEOUT = 3.0
# Seconds within which an event that was sent has to arrive, and those that are still live.
_EVENT_TIMEOUT = 2.0
_LATE = 1.0
_ROUNDS = 5
# Seconds that a page which tells of an error may take to come.
_PAGE_TIMEOUT = 0.5

_WITHOUT_PROXY = "Ask the application directly, without the proxy, to see which one it is."
_REDIRECT_ADVICE = (
    "If that is a login, log in as a page would: --header 'Cookie: …'. "
    "Otherwise examine that address, and let the page open it directly."
)
_STATUS_ADVICE = {
    204: "The stream has ended for this cursor; without one it should answer 200.",
    400: "See the rule in the text; stream ids come from the URL.",
    401: "Log in as a page would: --header 'Cookie: …' or --header 'Authorization: …'.",
    403: "Log in as a page would: --header 'Cookie: …' or --header 'Authorization: …'.",
    404: "Is this the path of the view that returns get_stream()?",
    405: "The view has to take GET.",
    502: "The proxy can't reach the application: is it up, and where the proxy looks for it?",
    503: "Too many open streams (max_subscribers, descriptors), or the proxy has nobody to ask.",
    504: "The proxy has waited for the application in vain: does it have a free worker?",
}


def examine_endpoint(
    url: str,
    headers: Mapping[str, str],
    source: str | None,
    prefix: str,
    stream_id: str | None,
) -> Iterator[Finding]:
    """Findings as they are made.

    A few events named EVENT_NAME are sent to who listens to the stream now; where they don't
    arrive, up to 64 KiB of them. They leave nothing in its history.

    Args:
        url: what checked_url() takes.
        headers: of the request, as checked_header() gives them.
        source: the application's Redis; None if it can't be reached.
        stream_id: the stream that the URL serves; None where that isn't known.
    """
    with contextlib.ExitStack() as stack:
        try:
            response = stack.enter_context(contextlib.closing(EndpointResponse(url, headers)))
        except (OSError, UnicodeError) as exc:
            yield _not_connected(exc)
            return
        sender = None
        if source is not None and stream_id is not None:
            # What isn't kept trims nothing, and is replayed to nobody.
            config = StreamConfig(prefix=prefix, history_length=0)
            streams = stack.enter_context(StreamManager(source, config=config))
            sender = Sender(streams, stream_id)
        try:
            yield from _examine(response, sender)
        except StreamEnded as exc:
            advice = "Take a stream that lives."
            yield problem("delivery", f"stream {exc.stream_id!r} has ended", advice)
        except RedisUnavailable as exc:
            advice = "See what is said of Redis above."
            yield problem("delivery", f"no event could be sent: {exc}", advice)


def _not_connected(error: Exception) -> Finding:
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = (
            "Browsers refuse it as well, unless they trust its authority; "
            "the doctor trusts the one in the file that SSL_CERT_FILE names."
        )
        return problem("connection", f"wrong certificate: {error.verify_message}", advice)
    text = f"the endpoint can't be reached: {error}"
    return problem("connection", text, "Is the server up, are host, port and scheme right?")


def _examine(response: EndpointResponse, sender: Sender | None) -> Iterator[Finding]:
    if not response.wait(lambda: response.has_answered, _ANSWER_TIMEOUT) and sender is not None:
        sender.push(response, lambda: response.has_answered)
    if response.status is None:
        yield _no_answer(response, sender)
        return
    yield _examine_status(response)
    if response.status != 200:
        return
    content_type = _examine_content_type(response.headers.get("content-type", ""))
    yield content_type
    if content_type.level is Level.PROBLEM:
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
    if response.is_over:
        text = f"no response: {response.error}"
        return problem("status", text, "Is this the port of a web server, and the scheme right?")
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
    # EventSource gives up for good on anything but 200, where its redirects have led it.
    if 300 <= status < 400:
        text = f"{status}, which leads to {response.headers.get('location', 'nowhere')}"
        return problem("status", text, _REDIRECT_ADVICE)
    response.wait(lambda: False, _PAGE_TIMEOUT)
    body = " ".join(response.text.split())[:120]
    advice = _STATUS_ADVICE.get(status, "See the application's log.")
    return problem("status", f"{status}: {body}" if body else str(status), advice)


def _examine_content_type(value: str) -> Finding:
    check = "content-type"
    if value.partition(";")[0].strip().lower() == "text/event-stream":
        return ok(check, value)
    text = f"{value or 'none'}: EventSource refuses it and gives up"
    return problem(check, text, "Return what get_stream() gives, as it is; is this its path?")


def _examine_headers(response: EndpointResponse) -> Iterator[Finding]:
    headers = response.headers
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
        if response.is_over:
            text = "over behind its retry: line, which is how a proxy answers while no server does"
            return problem(check, text, "Is the application up, and does the proxy reach it?")
        text = "the stream opens and waits: the application can't reach its Redis"
        return problem(check, text, "See the application's log, and its STREAMY_REDIS_URL.")
    text = "there is no stream-open: this isn't a stream of streamy-redis"
    return note(check, text, "Is this the path of the view that returns get_stream()?")


def _examine_delivery(response: EndpointResponse, sender: Sender) -> Finding:
    check = "delivery"
    marker = _new_marker()
    if not sender.repeat(marker, response, _EVENT_TIMEOUT):
        return _not_delivered(check, response, sender, marker)
    delays = []
    for _ in range(_ROUNDS):
        begin = monotonic()
        marker = _new_marker()
        sender.send(marker)
        if not response.wait(_has(marker, response), _EVENT_TIMEOUT):
            return _not_delivered(check, response, sender, marker)
        delays.append(monotonic() - begin)
    text = f"an event that is sent now arrives after {spread(delays)}"
    if max(delays) > _LATE:
        return problem(check, text, f"Something collects events. {_unbuffer(response)}")
    return ok(check, text)


def _new_marker() -> str:
    return secrets.token_hex(12)


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
    try:
        parts = urllib.parse.urlsplit(url)
        parts.port  # noqa: B018
    except ValueError:
        # Python's own words hold what it took for a port, which may be a password.
        raise ValueError("URL has no valid host and port") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("URL must be http://… or https://…")
    if "@" in parts.netloc:
        raise ValueError("URL must not hold a password; --header 'Authorization: Basic …' does")
    return url


def checked_header(line: str) -> tuple[str, str]:
    """Name, in lower case, and value of a header of the request.

    Raises:
        ValueError: HTTP can't carry it.
    """
    name, colon, value = line.partition(":")
    if not colon:
        raise ValueError("a header must be 'NAME: VALUE'")
    return validated_header(name.strip(), value.strip())
