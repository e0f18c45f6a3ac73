"""What the README shows is what is there: code, defaults, signatures, extras, files."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import os
import re
import tomllib
from typing import Any

import pytest
from flask import Flask

import streamy_redis
from streamy_redis import AsyncStreamManager, StreamConfig, StreamManager
from streamy_redis.config import with_settings

from .document import (
    EXAMPLES,
    PAGES,
    README,
    ROOT,
    Block,
    anchors,
    blocks,
    command,
    links,
    proofs,
    table,
)

SHOWN = [
    block
    for text in PAGES.values()
    for block in blocks(text)
    if block.language not in ("sh", "text")
]
SUFFIXES = {".py", ".html", ".js", ".conf", ".yml"}
MOST_LINES = {"flask_app.py": 12, "starlette_app.py": 12, "job.py": 5, "page.html": 5}
CONFIG = {row[0].strip("`"): row for row in table("field")}


@pytest.mark.parametrize("block", SHOWN, ids=str)
def test_shows_the_example_as_it_is(block: Block):
    assert block.path is not None, "code without a file that a test runs"
    assert block.after == block.path.read_text()


def test_shows_every_example():
    files = {p for p in EXAMPLES.rglob("*") if p.suffix in SUFFIXES}

    assert {block.path for block in SHOWN} == files


def test_the_readme_shows_no_example_twice():
    shown = [str(block) for block in blocks() if block.path]

    assert len(shown) == len(set(shown))


@pytest.mark.parametrize(("name", "most"), MOST_LINES.items(), ids=MOST_LINES)
def test_the_first_examples_are_short(name: str, most: int):
    [shown] = [block for block in blocks() if str(block) == name]

    assert len(shown.text.splitlines()) <= most


@pytest.mark.parametrize(
    ("page", "link"), sorted({(page, link) for page, text in PAGES.items() for link in links(text)})
)
def test_a_link_leads_somewhere(page: str, link: str):
    if link.startswith("https://"):
        return
    path, _, anchor = link.partition("#")
    target = ((ROOT / page).parent / path).resolve() if path else ROOT / page
    assert target.exists()
    assert not anchor or anchor in anchors(target.read_text())


@pytest.mark.parametrize(
    ("page", "path", "test"),
    [(page, *proof) for page, text in PAGES.items() for proof in proofs(text)],
)
def test_a_proof_is_a_test_that_exists(page: str, path: str, test: str):
    tree = ast.parse(((ROOT / page).parent / path).read_text())

    assert test in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    assert test.startswith("test_")


def test_every_case_of_the_promise_and_every_fault_has_its_proof():
    cases = table("case") + table("fault", PAGES["docs/reliability.md"])

    assert [row[0] for row in cases if not proofs(row[-1])] == []


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "docs").glob("*.png")))
def test_a_picture_is_a_small_png(name: str):
    content = (ROOT / "docs" / name).read_bytes()

    assert content.startswith(b"\x89PNG")
    assert len(content) < 150_000


@pytest.mark.parametrize("script", re.findall(r"scripts/\w+|\.ci/run", README))
def test_a_script_can_be_run(script: str):
    assert os.access(ROOT / script, os.X_OK)


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
    shown = {row[0].strip("`") for row in table("environment variable")}
    source = "".join(p.read_text() for p in (ROOT / "streamy_redis").rglob("*.py"))

    read = set(re.findall(r'os\.environ(?:\.get\(|\[)"(\w+)"', source))
    of_the_command_line = set(re.findall(r"`(\w+)`", PAGES["docs/command-line.md"]))

    assert shown <= read
    assert read - of_the_command_line <= shown


@pytest.mark.parametrize("row", table("method"), ids=lambda row: row[0].partition("(")[0])
def test_a_method_has_the_signature_that_is_shown(row: list[str]):
    names = re.findall(r"`(\w+)\((.*?)\)`", row[0])
    for name, parameters in names:
        managers = [m for m in (StreamManager, AsyncStreamManager) if hasattr(m, name)]
        assert len(managers) == 3 - len(names)
        for manager in managers:
            assert signature(manager, name) == parameters


def signature(manager: type, name: str) -> str:
    found = inspect.signature(getattr(manager, name))
    bare = [p.replace(annotation=p.empty) for p in found.parameters.values() if p.name != "self"]
    text = str(found.replace(parameters=bare, return_annotation=found.empty))
    return text[1:-1].replace("'", '"')


def test_all_public_methods_are_shown():
    shown = set(re.findall(r"`(\w+)\(", "".join(row[0] for row in table("method"))))
    public = {n for m in (StreamManager, AsyncStreamManager) for n in vars(m) if n[0] != "_"}

    assert public - shown == {"init_app", "lifespan"}
    assert all(f"`{name}" in README for name in public)


def test_all_errors_are_named():
    errors = {name for name in streamy_redis.__all__ if name.startswith(("Invalid", "Redis"))}

    assert all(f"`{name}`" in README for name in {*errors, "StreamEnded"})


def test_the_extras_install_what_is_shown():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for_developers = {"demo", "docs", "test", "test-core", "check"}
    shown = {row[0].strip("`"): set(row[1].split(", ")) for row in table("extra")}

    assert shown == {
        name: {re.split(r"[\[><=]", requirement)[0] for requirement in requirements}
        for name, requirements in extras.items()
        if name not in for_developers
    }


@pytest.mark.parametrize("app", ["flask_app", "starlette_app"])
def test_the_install_command_has_what_the_server_needs(app: str):
    server = command(f" {app}:app").split()[0]
    [block] = [b for b in blocks() if b.language == "sh" and f" {app}:app" in b.text]

    assert server in block.text.splitlines()[0]
    assert "STREAMY_REDIS_URL" in block.text
