"""The publisher: sends, ends, deletes and describes streams."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from ..config import PAGE_BYTES, StreamConfig
from ..connections import Interrupted, Shared, is_passing, refusal, without_arguments
from ..core.attempts import Attempts
from ..core.history import HistoryRequest, StreamInfo
from ..core.witness import Witnesses
from ..exceptions import RedisUnavailable, StreamEnded
from ..keys import Keys
from ..scripts import (
    PUBLISH,
    READ,
    Command,
    Nonce,
    Script,
    acknowledged,
    event_ids,
    nonces_of,
    publish_arguments,
    read_arguments,
    read_info,
)
from .pipelines import Pipelines

__all__ = ["Publisher"]

_log = logging.getLogger("streamy_redis.publisher")


class Publisher:
    """Sends through a few connections. Safe to share between threads and greenlets."""

    def __init__(self, pipelines: Pipelines, config: StreamConfig, witnesses: Witnesses) -> None:
        self._pipelines = pipelines
        self._config = config
        self._keys = Keys(config.prefix)
        self._witnesses = witnesses

    def send(
        self,
        stream_id: str,
        blocks: Sequence[bytes],
        key: str | None,
        *,
        is_first_try: bool = False,
    ) -> list[str]:
        """The ids of publications, all sent in one atomic step.

        Args:
            key: the caller's idempotency key.
            is_first_try: nothing can have been stored with that key yet, so that nobody has to
                look for it.

        Raises:
            StreamEnded, RedisUnavailable
        """
        nonces = nonces_of(key or secrets.token_hex(12), len(blocks))
        status, position = self._publish(
            stream_id, blocks, nonces, is_end=False, is_repeat=key is not None and not is_first_try
        )
        if status == "ended":
            raise StreamEnded(stream_id)
        _log.debug("sent %s to %r", position, stream_id)
        return event_ids(position, nonces)

    def end(self, stream_id: str, block: bytes) -> bool:
        """Whether this call ended the stream."""
        nonces = nonces_of(secrets.token_hex(12), 1)
        status, _ = self._publish(stream_id, [block], nonces, is_end=True, is_repeat=False)
        return status != "ended"

    def delete(self, stream_id: str) -> bool:
        """Whether there was a history or an end to forget (UNLINK)."""
        key = self._keys.log(stream_id)
        removed = self._run(
            lambda attempts: self._pipelines.ask(("UNLINK", key), attempts),
            f"delete {stream_id!r}",
            key,
        )
        self._witnesses.forget(stream_id)
        return bool(removed)

    def info(self, stream_id: str) -> StreamInfo:
        """What Redis holds of the stream."""
        key = self._keys.log(stream_id)
        request = HistoryRequest.newest(stream_id, 0, limit=0)
        arguments = read_arguments(request, most_bytes=PAGE_BYTES)
        reply = self._run(
            lambda attempts: self._evaluate(READ, [key], arguments, attempts),
            f"read {stream_id!r}",
            key,
        )
        return read_info(stream_id, reply)

    def _publish(
        self,
        stream_id: str,
        blocks: Sequence[bytes],
        nonces: Sequence[Nonce],
        *,
        is_end: bool,
        is_repeat: bool,
    ) -> tuple[str, str]:
        config = self._config
        log = self._keys.log(stream_id)

        def evaluate(attempts: Attempts) -> Any:
            arguments = publish_arguments(
                blocks,
                nonces,
                is_end=is_end,
                history_length=config.history_length,
                ttl=config.ended_ttl if is_end else config.history_ttl,
                may_repeat=is_repeat or attempts.is_retry,
                witness=self._witnesses.of(stream_id),
            )
            return self._evaluate(PUBLISH, [log], arguments, attempts)

        action = f"{'end' if is_end else 'send to'} {stream_id!r}"
        key = None if is_end else nonces[-1].text.partition("\0")[0]
        status, position = self._run(evaluate, action, log, idempotency_key=key)
        if status != b"ended":
            stored = acknowledged(position.decode(), nonces)
            if stored is not None:
                self._witnesses.note(stream_id, stored)
        return status.decode(), position.decode()

    def _evaluate(
        self, script: Script, keys: Sequence[str], arguments: Command, attempts: Attempts
    ) -> Any:
        try:
            return self._pipelines.ask(script.by_sha(keys, arguments), attempts)
        except redis.exceptions.NoScriptError:
            return self._pipelines.ask(script.by_source(keys, arguments), attempts)

    def _run(
        self,
        command: Callable[[Attempts], Any],
        action: str,
        key: str,
        *,
        idempotency_key: str | None = None,
    ) -> Any:
        """The reply, after as many tries as there may be. The one place that asks Redis."""
        attempts = Attempts.of(self._config, time.monotonic())
        while True:
            try:
                return command(attempts)
            except TimeoutError:
                # redis-py has one of its own: this is a time limit of the caller's.
                raise
            except (redis.RedisError, OSError) as exc:
                pause = _pause(attempts, exc)
                if pause is None:
                    cause = without_arguments(exc.error if isinstance(exc, Shared) else exc)
                    reason = refusal(action, key, cause)
                    raise RedisUnavailable(reason, idempotency_key=idempotency_key) from cause
            time.sleep(pause)


def _pause(attempts: Attempts, error: Exception) -> float | None:
    """Seconds to wait before the next try, or None if there is none."""
    now = time.monotonic()
    if isinstance(error, Interrupted):
        return attempts.repeat(now)
    if isinstance(error, Shared):
        return attempts.share(now, random.random()) if is_passing(error.error) else None
    return attempts.pause(now, random.random()) if is_passing(error) else None
