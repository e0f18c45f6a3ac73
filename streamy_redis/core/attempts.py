"""Attempts: how often, and until when, a send is tried."""

from __future__ import annotations

from ..config import RETRY_BACKOFF, StreamConfig

__all__ = ["Attempts", "attempt_timeout"]


def attempt_timeout(config: StreamConfig) -> float:
    """Seconds that one try may wait for Redis, so that all of them fit in send_timeout."""
    return config.send_timeout / (config.max_retries + 1)


class Attempts:
    """The tries of one send: the first, then retries with growing pauses until a deadline.

    Args:
        deadline: when to give up, on the caller's clock.
        latest: when the last try has to be under way, to be answered by then.
        max_retries: tries after the first.
        backoff: seconds of the first pause, and of the longest.
    """

    __slots__ = ("_backoff", "_has_shared", "_left", "_pause", "deadline", "is_retry", "latest")

    def __init__(
        self, deadline: float, *, latest: float, max_retries: int, backoff: tuple[float, float]
    ) -> None:
        self.deadline = deadline
        self.latest = latest
        # Whether an earlier try may have been carried out.
        self.is_retry = False
        # Whether a batch has failed with it already.
        self._has_shared = False
        self._left = max_retries
        self._pause, self._backoff = backoff

    @classmethod
    def of(cls, config: StreamConfig, now: float) -> Attempts:
        """The tries that a send has which begins now."""
        deadline = now + config.send_timeout
        return cls(
            deadline,
            latest=deadline - attempt_timeout(config),
            max_retries=config.max_retries,
            backoff=RETRY_BACKOFF,
        )

    def pause(self, now: float, dice: float) -> float | None:
        """Seconds to wait before the next try, or None if there is none.

        Args:
            dice: a random number from 0 to 1, so that senders don't retry in step.
        """
        pause = self._pause * (0.5 + dice / 2)
        if not self._left or now + pause >= self.deadline:
            return None
        self._left -= 1
        self._pause = min(self._pause * 2, self._backoff)
        self.is_retry = True
        return pause

    def repeat(self, now: float) -> float | None:
        """As pause, where somebody else has broken a try off, so that it doesn't count."""
        self.is_retry = True
        return 0.0 if now < self.latest else None

    def share(self, now: float, dice: float) -> float | None:
        """As pause, where a whole batch failed: it may be due to another in it, but only once."""
        if self._has_shared:
            return self.pause(now, dice)
        self._has_shared = True
        return self.repeat(now)
