"""The errors of streamy-redis.

StreamyError
├── InvalidEvent (also a ValueError)
├── StreamEnded
├── RedisUnavailable
└── ResponseCut (also a BrokenPipeError)
"""

from __future__ import annotations

import errno

__all__ = ["InvalidEvent", "RedisUnavailable", "ResponseCut", "StreamEnded", "StreamyError"]


class StreamyError(Exception):
    """Base of every error that streamy-redis raises on purpose."""


class InvalidEvent(StreamyError, ValueError):
    """Raised when a stream id, event, cursor argument or header breaks a rule.

    It is raised before Redis is asked, so nothing was stored. The message names the field
    and the rule.

    Attributes:
        field: the name of the argument, for example ``"event_name"``.
        rule: what that argument has to be.
    """

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(field, rule)
        self.field = field
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.field} {self.rule}"


class StreamEnded(StreamyError):
    """Raised when an event is sent to a stream that has ended.

    An end is forgotten ``ended_ttl`` seconds later, or at once by ``delete_stream``.

    Attributes:
        stream_id: the stream that has ended.
    """

    def __init__(self, stream_id: str) -> None:
        super().__init__(stream_id)
        self.stream_id = stream_id

    def __str__(self) -> str:
        return (
            f"stream {self.stream_id!r} has ended; "
            "delete_stream() forgets the end, so that the id can be used anew"
        )


class RedisUnavailable(StreamyError):
    """Raised when Redis can't be reached in time, or refuses the command.

    An event whose send raised may still have been stored, since the reply may be what was
    lost. Sending it again with ``idempotency_key=error.idempotency_key`` stores it once.

    Attributes:
        reason: what went wrong, with the key or permission that Redis named.
        idempotency_key: the key with which the same send can be repeated safely; None where
            repeating is safe without one.
    """

    def __init__(self, reason: str, *, idempotency_key: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.idempotency_key = idempotency_key

    def __str__(self) -> str:
        return self.reason


class ResponseCut(StreamyError, BrokenPipeError):
    """Raised out of a WSGI response's body when it is cut and its server hides the connection.

    The server breaks the response off then, without its last chunk. It is what writing to a client
    that has left raises, which most servers therefore don't log.
    """

    def __init__(self) -> None:
        super().__init__(errno.EPIPE, "the response is cut: its client resumes it")
