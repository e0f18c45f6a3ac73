"""A response of an endpoint as it comes in, with the times at which it did."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable, Mapping

__all__ = ["EndpointResponse"]

_CONNECT_TIMEOUT = 3.0
# Characters of the body that are kept: a page of padding and what is looked for in front of it.
_KEPT = 1024 * 1024
# What zlib can take apart: gzip and zlib, told from each other by their headers (zlib's manual,
# inflateInit2). Not offered to the server: br and zstd.
_ANY_HEADER = 32 + zlib.MAX_WBITS
_REQUEST_HEADERS = {
    "accept": "text/event-stream",
    # As browsers do, or else nothing on the way would compress it.
    "accept-encoding": "gzip, deflate",
    "cache-control": "no-cache",
    "user-agent": "streamy-redis doctor",
}


class EndpointResponse:
    """Asks for a stream as an EventSource does; a thread of its own reads what comes.

    Attributes may be read at any time; ``wait`` waits for them to change.

    Args:
        url: http or https.
        headers: over those that an EventSource sends, such as a cookie; names in lower case.

    Raises:
        OSError, UnicodeError: there is no connection to this host, or its certificate is wrong.

    Attributes:
        status: None until the headers have come.
        headers: their names in lower case.
        answered_after, first_byte_after: seconds from the request; None until then.
        text: the newest part of the body, decompressed.
        error: why there is no (more) response.
        is_over: whether nothing more will come.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        parts = urllib.parse.urlsplit(url)
        kind = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        self._connection = kind[parts.scheme](
            parts.hostname or "", parts.port, timeout=_CONNECT_TIMEOUT
        )
        target = parts._replace(scheme="", netloc="", path=parts.path or "/", fragment="")
        # As browsers send it.
        self._target = urllib.parse.quote(target.geturl(), safe="%/?#[]@:!$&'()*+,;=~")
        self._request_headers = _REQUEST_HEADERS | dict(headers)
        self._changed = threading.Condition()
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.answered_after: float | None = None
        self.first_byte_after: float | None = None
        self.text = ""
        self.error: Exception | None = None
        self.is_over = False
        self._connection.connect()
        self._socket: socket.socket = self._connection.sock
        # From here on, how long is too long is the doctor's to judge.
        self._socket.settimeout(None)
        thread = threading.Thread(target=self._read, name="streamy-redis doctor", daemon=True)
        thread.start()

    @property
    def has_answered(self) -> bool:
        return self.status is not None or self.is_over

    def wait(self, condition: Callable[[], object], seconds: float) -> bool:
        """Whether the condition came true in time, before the response was over."""
        with self._changed:
            self._changed.wait_for(lambda: condition() or self.is_over, seconds)
            return bool(condition())

    def close(self) -> None:
        """Leaves. Repeating it is harmless."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        try:
            self._receive()
        except (OSError, http.client.HTTPException, zlib.error) as exc:
            self.error = exc
        finally:
            self._connection.close()
            with self._changed:
                self.is_over = True
                self._changed.notify_all()

    def _receive(self) -> None:
        begin = time.monotonic()
        self._connection.request("GET", self._target, headers=self._request_headers)
        with self._connection.getresponse() as response:
            with self._changed:
                self.headers = {name.lower(): value for name, value in response.getheaders()}
                self.status = response.status
                self.answered_after = time.monotonic() - begin
                self._changed.notify_all()
            unpack = _unpacker(self.headers.get("content-encoding", ""))
            while chunk := response.read1(65536):
                with self._changed:
                    if self.first_byte_after is None:
                        self.first_byte_after = time.monotonic() - begin
                    self.text = (self.text + unpack(chunk).decode(errors="replace"))[-_KEPT:]
                    self._changed.notify_all()


def _unpacker(encoding: str) -> Callable[[bytes], bytes]:
    if encoding.lower() in ("gzip", "x-gzip", "deflate"):
        return zlib.decompressobj(_ANY_HEADER).decompress
    return bytes
