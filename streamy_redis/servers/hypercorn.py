"""hypercorn: its requests, by HTTP/1 and HTTP/2, and the worker behind them."""

from __future__ import annotations

from typing import Any

from .reach import is_made_by
from .shown import Shown, StreamTransport, Transport

__all__ = ["Worker", "has_stopped", "is_worker", "shown_by"]

# hypercorn.asyncio.worker_context.WorkerContext.
Worker = Any


def shown_by(each: Any) -> Shown | None:
    """The request, if this is what answers one."""
    if not is_made_by("hypercorn", each) or not hasattr(each, "app_send"):
        return None
    protocol = getattr(each.send, "__self__", None)
    transport = _transport_of(protocol, each.stream_id)
    return Shown(each.scope["headers"], transport, each.context) if transport else None


def _transport_of(protocol: Any, stream_id: int) -> Transport | None:
    if hasattr(protocol, "stream_buffers"):
        return StreamTransport(lambda abruptly: _reset(protocol, stream_id, abruptly))
    connection = getattr(getattr(protocol, "send", None), "__self__", None)
    writer = getattr(connection, "writer", None)
    # Not by HTTP/3, nor on trio.
    return getattr(writer, "transport", None)


async def _reset(protocol: Any, stream_id: int, abruptly: bool) -> None:
    """As if the client had, and tells it. A stream that isn't ended hypercorn leaves open."""
    from h2.errors import ErrorCodes
    from h2.events import StreamReset
    from h2.exceptions import ProtocolError

    unsent = protocol.stream_buffers.get(stream_id)
    if unsent is not None and not abruptly:
        await unsent.drain()
    try:
        protocol.connection.reset_stream(stream_id, ErrorCodes.INTERNAL_ERROR)
    except ProtocolError:
        # The client has left meanwhile.
        return
    await protocol._handle_events([StreamReset(stream_id=stream_id)])


def is_worker(candidate: object) -> bool:
    return is_made_by("hypercorn", candidate) and hasattr(candidate, "terminated")


def has_stopped(worker: Worker) -> bool:
    """Whether it has begun to stop, for whatever reason."""
    return bool(worker.terminated.is_set())
