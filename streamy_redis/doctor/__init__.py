"""The doctor: what keeps streams from arriving, found by trying.

Each check is a function that yields findings; it prints nothing and ends nothing.
"""

from __future__ import annotations

from .endpoint import checked_header, checked_url, examine_endpoint
from .finding import Finding, Level
from .server import examine_redis

__all__ = [
    "Finding",
    "Level",
    "checked_header",
    "checked_url",
    "examine_endpoint",
    "examine_redis",
]
