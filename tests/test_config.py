"""StreamConfig: the documented defaults, and a refusal that names the field for each bad value."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest

from streamy_redis import StreamConfig

DEFAULTS = {
    "prefix": "streamy",
    "history_length": 1000,
    "history_ttl": 3600,
    "ended_ttl": 600,
    "keep_alive_interval": 15,
    "retry_interval": (1.0, 3.0),
    "max_event_size": 1024 * 1024,
    "max_backlog": 1000,
    "max_backlog_bytes": 1024 * 1024,
    "write_timeout": 30,
    "send_timeout": 5,
    "max_retries": 3,
    "position_check_interval": 10,
    "max_subscribers": None,
    "max_lifetime": None,
    "handover": True,
}
DURATIONS = [
    "history_ttl",
    "ended_ttl",
    "keep_alive_interval",
    "write_timeout",
    "send_timeout",
    "position_check_interval",
    "max_lifetime",
]
COUNTS = {
    "history_length": 0,
    "max_retries": 0,
    "max_event_size": 1,
    "max_backlog": 1,
    "max_backlog_bytes": 1,
    "max_subscribers": 1,
}
OPTIONAL = {"max_subscribers", "max_lifetime"}


def bad_values() -> list[Any]:
    cases: list[tuple[str, Any]] = []
    for field in DURATIONS:
        cases += [(field, value) for value in (0, -1, math.nan, math.inf, "1", True, [1], 1e300)]
    for field, least in COUNTS.items():
        cases += [(field, value) for value in (least - 1, 1.5, "1", True, math.nan)]
    for field in {*DURATIONS, *COUNTS} - OPTIONAL:
        cases.append((field, None))
    for value in (None, 1, (1,), (1, 2, 3), (2, 1), (-1, 1), ("1", "2"), (True, 2), (0, math.inf)):
        cases.append(("retry_interval", value))
    for value in (None, "", 7, b"p", "a{b", "a}b", "a\nb", "a\0"):
        cases.append(("prefix", value))
    for value in (None, 0, 1, "yes"):
        cases.append(("handover", value))
    for value in (None, "json", 7, json.JSONEncoder):
        cases.append(("json_encoder", value))
    return [pytest.param(f, v, id=f"{f}={v!r}"[:50]) for f, v in sorted(cases, key=str)]


@pytest.mark.parametrize(("field", "value"), bad_values())
def test_refuses_a_bad_value_and_names_the_field(field: str, value: Any):
    with pytest.raises((ValueError, TypeError), match=field):
        StreamConfig(**{field: value})


@pytest.mark.parametrize(("field", "value"), DEFAULTS.items(), ids=DEFAULTS)
def test_has_the_documented_default(field: str, value: Any):
    assert getattr(StreamConfig(), field) == value


def test_every_field_is_documented_and_checked():
    fields = {field.name for field in dataclasses.fields(StreamConfig)}

    assert fields == {*DEFAULTS, "json_encoder"}
    assert all(f"{field}:" in (StreamConfig.__doc__ or "") for field in fields)
    assert {case.values[0] for case in bad_values()} == fields


@pytest.mark.parametrize("field", [*DURATIONS, *COUNTS])
def test_takes_the_least_that_is_allowed(field: str):
    least = COUNTS.get(field, 0.001)

    assert getattr(StreamConfig(**{field: least}), field) == least


def test_takes_durations_as_int_and_float_and_equal_retry_bounds():
    config = StreamConfig(history_ttl=60, ended_ttl=0.5, retry_interval=(2, 2))

    assert (config.history_ttl, config.ended_ttl, config.retry_interval) == (60, 0.5, (2, 2))


def test_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        StreamConfig().prefix = "other"  # type: ignore[misc]


def test_the_json_encoder_is_compact_and_keeps_letters():
    assert StreamConfig().json_encoder({"a": [1, "é"]}) == '{"a":[1,"é"]}'
