"""The publisher: sends, ends, deletes and describes streams."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from ..config import StreamConfig
from ..connections import Interrupted, Shared, is_passing, refusal, without_arguments
from ..core.attempts import Attempts
from ..core.history import HistoryRequest, StreamInfo
from ..core.idempotency import IdempotencyKey
from ..core.witness import Witnesses
from ..exceptions import RedisUnavailable, StreamEnded
from ..keys import Keys
from ..scripts import (
    PUBLISH,
    READ,
    Command,
    Script,
    acknowledged,
    event_ids,
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
            key: the idempotency key, a caller's or of new_key(); None draws one.
            is_first_try: nothing can have been stored with that key yet.

        Raises:
            StreamEnded, RedisUnavailable
        """
        known_by = self._drawn(stream_id) if key is None else IdempotencyKey.given(key)
        ids = self._publish(
            stream_id, blocks, known_by, is_end=False, is_first_try=key is None or is_first_try
        )
        if ids is None:
            raise StreamEnded(stream_id)
        _log.debug("sent %s to %r", ids[-1], stream_id)
        return ids

    def new_key(self, stream_id: str) -> str:
        """A key for a send to the stream that begins now, and may be tried again later."""
        return str(self._drawn(stream_id))

    def _drawn(self, stream_id: str) -> IdempotencyKey:
        return IdempotencyKey.drawn(secrets.token_hex(12), self._witnesses.of(stream_id))

    def end(self, stream_id: str, block: bytes) -> bool:
        """Whether this call ended the stream."""
        known_by = self._drawn(stream_id)
        ids = self._publish(stream_id, [block], known_by, is_end=True, is_first_try=True)
        return ids is not None

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
        arguments = read_arguments(request)
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
        known_by: IdempotencyKey,
        *,
        is_end: bool,
        is_first_try: bool,
    ) -> list[str] | None:
        """The ids; None if the stream had ended."""
        config = self._config
        log = self._keys.log(stream_id)
        nonces = known_by.nonces(len(blocks))

        def evaluate(attempts: Attempts) -> Any:
            arguments = publish_arguments(
                blocks,
                nonces,
                is_end=is_end,
                history_length=config.history_length,
                ttl=config.ended_ttl if is_end else config.history_ttl,
                search=known_by.search(is_first_try=is_first_try and not attempts.is_retry),
                witness=self._witnesses.of(stream_id),
            )
            return self._evaluate(PUBLISH, [log], arguments, attempts)

        action = f"{'end' if is_end else 'send to'} {stream_id!r}"
        key = None if is_end else str(known_by)
        status, position = self._run(evaluate, action, log, idempotency_key=key)
        if status == b"ended":
            return None
        stored = acknowledged(position.decode(), nonces)
        if stored is not None:
            self._witnesses.note(stream_id, stored)
        return event_ids(position.decode(), nonces)

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
