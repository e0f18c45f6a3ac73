"""What docs/configuration.md says: fields, defaults, variables, extras."""

from __future__ import annotations

import ast
import dataclasses
import json
import re
import tomllib
from typing import Any

import pytest
from flask import Flask

from streamy_redis import StreamConfig, StreamManager
from streamy_redis.config import with_settings

from .document import PAGES, ROOT, table

PAGE = PAGES["docs/configuration.md"]
CONFIG = {row[0].strip("`"): row for row in table("field", PAGE)}


def test_the_table_has_every_field_in_the_order_of_stream_config():
    assert list(CONFIG) == [field.name for field in dataclasses.fields(StreamConfig)]


@pytest.mark.parametrize("field", [f for f in CONFIG if f != "json_encoder"])
def test_a_field_has_the_default_that_is_shown(field: str):
    shown = ast.literal_eval(CONFIG[field][1].strip("`"))
    true = getattr(StreamConfig(), field)

    assert (shown, type(shown)) == (true, type(true))


def test_the_default_encoder_writes_compact_json():
    assert CONFIG["json_encoder"][1] == "compact JSON"
    assert StreamConfig().json_encoder({"a": [1, "ü"]}) == '{"a":[1,"ü"]}'


@pytest.mark.parametrize("field", CONFIG)
def test_a_field_is_a_setting_of_flask_that_wins(field: str):
    value: Any = {
        "prefix": "p",
        "retry_interval": (2, 4),
        "handover": False,
        "json_encoder": json.dumps,
    }.get(field, 7)

    config = with_settings(StreamConfig(), {f"STREAMY_{field.upper()}": value})

    assert getattr(config, field) == value


def test_a_setting_that_is_no_field_is_an_error():
    app = Flask(__name__)
    app.config["STREAMY_HISTORY_LENGHT"] = 200

    with pytest.raises(ValueError, match="STREAMY_HISTORY_LENGHT"):
        StreamManager(app=app)


def test_the_environment_variables_are_those_that_the_package_reads():
    shown = {row[0].strip("`") for row in table("environment variable", PAGE)}
    source = "".join(p.read_text() for p in (ROOT / "streamy_redis").rglob("*.py"))

    read = set(re.findall(r'os\.environ(?:\.get\(|\[)"(\w+)"', source))
    of_the_command_line = set(re.findall(r"`(\w+)`", PAGES["docs/command-line.md"]))

    assert shown <= read
    assert read - of_the_command_line <= shown


def test_the_extras_install_what_is_shown():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for_developers = {"demo", "docs", "test", "test-core", "check"}
    shown = {row[0].strip("`"): set(row[1].split(", ")) for row in table("extra", PAGE)}

    assert shown == {
        name: {re.split(r"[\[><=]", requirement)[0] for requirement in requirements}
        for name, requirements in extras.items()
        if name not in for_developers
    }
