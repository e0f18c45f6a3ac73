"""StreamConfig: the documented defaults, and a refusal that names the field for each bad value."""

from __future__ import annotations

import dataclasses
import json
import math
import os
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


VARIABLES = {
    "prefix": ("shop", "shop"),
    "history_length": ("0", 0),
    "history_ttl": ("60", 60.0),
    "ended_ttl": ("1.5", 1.5),
    "keep_alive_interval": (" 20 ", 20.0),
    "retry_interval": ("0.5, 2", (0.5, 2.0)),
    "max_event_size": ("1000", 1000),
    "max_backlog": ("10", 10),
    "max_backlog_bytes": ("10000", 10_000),
    "write_timeout": ("5", 5.0),
    "send_timeout": ("2", 2.0),
    "max_retries": ("1", 1),
    "position_check_interval": ("3", 3.0),
    "max_subscribers": ("100", 100),
    "max_lifetime": ("300", 300.0),
    "handover": ("false", False),
    "json_encoder": ("json:dumps", json.dumps),
}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("STREAMY_")]:
        monkeypatch.delenv(name)


def test_the_environment_has_a_variable_for_each_field(monkeypatch: pytest.MonkeyPatch):
    assert StreamConfig.from_env() == StreamConfig()
    for name, (text, _) in VARIABLES.items():
        monkeypatch.setenv(f"STREAMY_{name.upper()}", text)

    config = StreamConfig.from_env()

    assert {field.name for field in dataclasses.fields(config)} == set(VARIABLES)
    assert config == StreamConfig(**{name: value for name, (_, value) in VARIABLES.items()})
    assert all(type(getattr(config, name)) is type(VARIABLES[name][1]) for name in VARIABLES)


@pytest.mark.parametrize("text", ["1", "true", "True", "yes", "ON"])
def test_a_bool_is_written_in_several_ways(text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STREAMY_HANDOVER", text)

    assert StreamConfig.from_env().handover is True


@pytest.mark.parametrize(
    ("name", "text", "rule"),
    [
        ("history_length", "many", "a whole number, not 'many'"),
        ("history_length", "1.5", "a whole number"),
        ("history_length", "-1", "at least 0"),
        ("max_subscribers", "none", "a whole number"),
        ("keep_alive_interval", "15s", "a number of seconds"),
        ("keep_alive_interval", "nan", "between 0.001 and 1e9"),
        ("retry_interval", "1", "a pair"),
        ("retry_interval", "1-3", "such as 1,3"),
        ("retry_interval", "3,1", "ordered"),
        ("handover", "perhaps", "true or false"),
        ("prefix", "a{b", "no { or }"),
        ("json_encoder", "no_such_module:dumps", "module:function"),
        ("json_encoder", "json:no_such_function", "module:function"),
        ("json_encoder", "json:JSONEncoder", "JSONEncoder"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named_with_the_rule(
    name: str, text: str, rule: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(f"STREAMY_{name.upper()}", text)

    with pytest.raises(ValueError, match=f"STREAMY_{name.upper()}.*{rule}"):
        StreamConfig.from_env()


def test_variables_that_are_empty_or_somebody_else_s_say_nothing(monkeypatch: pytest.MonkeyPatch):
    for name in ("HISTORY_LENGTH", "PREFIX", "MAX_LIFETIME"):
        monkeypatch.setenv(f"STREAMY_{name}", " ")
    for name in ("REDIS_URL", "SERVICE_HOST", "PORT_6379_TCP"):
        monkeypatch.setenv(f"STREAMY_{name}", "tcp://10.0.0.1:6379")

    assert StreamConfig.from_env() == StreamConfig()
