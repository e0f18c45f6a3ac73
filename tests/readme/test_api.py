"""The tables of docs/reference.md: methods as they are, all errors."""

from __future__ import annotations

import inspect
import re

import pytest

import streamy_redis
from streamy_redis import AsyncStreamManager, StreamManager

from .document import PAGES, table

PAGE = PAGES["docs/reference.md"]
METHODS = table("method", PAGE)


@pytest.mark.parametrize("row", METHODS, ids=lambda row: row[0].partition("(")[0])
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
    shown = set(re.findall(r"`(\w+)\(", "".join(row[0] for row in METHODS)))
    public = {n for m in (StreamManager, AsyncStreamManager) for n in vars(m) if n[0] != "_"}

    assert public - shown == {"init_app", "lifespan"}
    assert all(f"`{name}" in PAGE for name in public)


def test_all_errors_are_named():
    errors = {name for name in streamy_redis.__all__ if name.startswith(("Invalid", "Redis"))}

    assert all(f"`{name}`" in PAGE for name in {*errors, "StreamEnded"})
