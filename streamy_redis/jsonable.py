"""JSON text of what applications have at hand, as FastAPI and Pydantic write it."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import uuid
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from types import GeneratorType
from typing import Any

__all__ = ["check_json", "to_json"]

_COMPACT = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def to_json(value: Any) -> str:
    """The compact JSON text of a value.

    Beside what JSON has by itself: dataclasses, Pydantic models, date, time, datetime, timedelta,
    UUID, Decimal, Enum, set, frozenset, deque, generators, paths, IP addresses, patterns and bytes
    of UTF-8; as keys, too. Any other object is refused, and not shown by its attributes.

    Raises:
        TypeError, ValueError, RecursionError: JSON can't carry it. NaN and Infinity are such.
    """
    try:
        return _COMPACT.encode(value)
    except TypeError:
        # Most data needs no look at each of its parts.
        return _COMPACT.encode(_jsonable(value))


def check_json(text: str) -> None:
    """Raises ValueError for what an encoder less strict lets through: NaN, lone surrogates."""
    if "NaN" in text or "Infinity" in text or "\\ud" in text or "\\uD" in text:
        _COMPACT.encode(json.loads(text)).encode()


def _jsonable(value: Any) -> Any:
    if isinstance(value, Enum):
        return _jsonable(value.value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dict):
        return {_jsonable(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset | deque | GeneratorType):
        return [_jsonable(item) for item in value]
    for kind, convert in _CONVERSIONS.items():
        if isinstance(value, kind):
            return convert(value)
    return _jsonable(_fields(value))


def _fields(value: Any) -> Any:
    kind = type(value)
    # A Pydantic model, without importing Pydantic.
    if hasattr(kind, "model_dump"):
        return value.model_dump(mode="json", by_alias=True)
    if dataclasses.is_dataclass(kind):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(kind)}
    if kind.__module__ == "ipaddress":
        return str(value)
    raise TypeError(f"Object of type {kind.__name__} is not JSON serializable")


def _number(value: Decimal) -> int | float:
    exponent = value.as_tuple().exponent
    return int(value) if isinstance(exponent, int) and exponent >= 0 else float(value)


_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    # A datetime is a date, too, with another format of its own.
    datetime.date: lambda moment: moment.isoformat(),
    datetime.time: datetime.time.isoformat,
    datetime.timedelta: datetime.timedelta.total_seconds,
    uuid.UUID: str,
    Decimal: _number,
    PurePath: str,
    bytes: bytes.decode,
    re.Pattern: lambda pattern: pattern.pattern,
}
