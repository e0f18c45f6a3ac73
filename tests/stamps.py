"""Which messages say when they were sent: those whose tag ends with 0, one in sixteen."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from streamy_redis.core.idempotency import tag_of

__all__ = ["keys"]


def keys(*, are_stamped: bool) -> Iterator[str]:
    """Idempotency keys, which are nonces, that make events say so, or not."""
    found = (f"key {n}" for n in itertools.count())
    return (key for key in found if tag_of(key).endswith("0") is are_stamped)
