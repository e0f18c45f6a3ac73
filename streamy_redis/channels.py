"""Channels: what is said and heard on the Pub/Sub connection."""

from __future__ import annotations

import logging

import redis

from .core.hub import Commands
from .core.publication import Publication
from .keys import Keys

__all__ = ["ChannelTable", "Message"]

_log = logging.getLogger("streamy_redis.listener")

# A stream, and what was heard of it: a publication, or None for an acknowledged SUBSCRIBE.
Message = tuple[str, Publication | None]


class ChannelTable:
    """The channels of one listener, by their names on the wire (RESP2)."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._stream_ids: dict[bytes, str] = {}
        self._has_seen_foreign = False
        # What Redis said when it refused a channel; None since one was acknowledged.
        self.refusal: Exception | None = None
        self._has_seen_refusal = False

    def pack(self, commands: Commands) -> list[tuple[str, str]]:
        """SUBSCRIBE and UNSUBSCRIBE, one for each channel, so that one refusal is one."""
        packed = []
        for stream_id in commands.unsubscribe:
            channel = self._keys.channel(stream_id)
            self._stream_ids.pop(channel.encode(), None)
            packed.append(("UNSUBSCRIBE", channel))
        for stream_id in commands.subscribe:
            channel = self._keys.channel(stream_id)
            self._stream_ids[channel.encode()] = stream_id
            packed.append(("SUBSCRIBE", channel))
        return packed

    def read(self, replies: list[object]) -> list[Message]:
        """The messages in replies, without pongs, UNSUBSCRIBEs, and what is none of ours."""
        messages: list[Message] = []
        for reply in replies:
            if not isinstance(reply, list) or len(reply) != 3:
                if isinstance(reply, redis.ResponseError):
                    self._refuse(reply)
                continue
            kind, channel, payload = reply
            stream_id = self._stream_ids.get(channel)
            if stream_id is None:
                continue
            if kind == b"message":
                publication = Publication.parse(payload)
                if publication is None:
                    self.skip_foreign(f"message on the channel of {stream_id!r}")
                else:
                    messages.append((stream_id, publication))
            elif kind == b"subscribe":
                self.refusal = None
                messages.append((stream_id, None))
        return messages

    def _refuse(self, error: Exception) -> None:
        # The hub asks again; the other channels go on.
        self.refusal = error
        if not self._has_seen_refusal:
            self._has_seen_refusal = True
            _log.warning("Redis refused a channel, which is tried again: %s", error)

    def skip_foreign(self, what: str) -> None:
        """Logs, once, that something which is none of ours was skipped."""
        if not self._has_seen_foreign:
            self._has_seen_foreign = True
            _log.warning("skipped a foreign %s; more are not logged", what)
