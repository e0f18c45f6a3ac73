"""What the pages show is what is there: code, links, proofs, pictures, scripts."""

from __future__ import annotations

import ast
import os
import re

import pytest

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
MOST_LINES = {"flask_app.py": 12, "fastapi_app.py": 12, "job.py": 5, "page.html": 5}


@pytest.mark.parametrize("block", SHOWN, ids=str)
def test_shows_the_example_as_it_is(block: Block):
    assert block.path is not None, "code without a file that a test runs"
    assert block.after == block.path.read_text()


def test_shows_every_example():
    files = {p for p in EXAMPLES.rglob("*") if p.suffix in SUFFIXES}

    assert {block.path for block in SHOWN} == files


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 200


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
    page = PAGES["docs/reliability.md"]
    cases = table("case", page) + table("fault", page)

    assert [row[0] for row in cases if not proofs(row[-1])] == []


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "docs").glob("*.png")))
def test_a_picture_is_a_small_png(name: str):
    content = (ROOT / "docs" / name).read_bytes()

    assert content.startswith(b"\x89PNG")
    assert len(content) < 150_000


SCRIPTS = sorted(set(re.findall(r"scripts/\w+|\.ci/run", README + PAGES["CONTRIBUTING.md"])))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_can_be_run(script: str):
    assert os.access(ROOT / script, os.X_OK)


@pytest.mark.parametrize("app", ["flask_app", "fastapi_app"])
def test_the_install_command_has_what_the_server_needs(app: str):
    server = command(f" {app}:app").split()[0]
    [block] = [b for b in blocks() if b.language == "sh" and f" {app}:app" in b.text]

    assert server in block.text.splitlines()[0]
    assert "STREAMY_REDIS_URL" in block.text
