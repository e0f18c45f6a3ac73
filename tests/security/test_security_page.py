"""What docs/security.md says of the package is so."""

from __future__ import annotations

import dataclasses
import re

from streamy_redis import StreamConfig
from tests.readme.document import PAGES, table

from .conftest import PERMISSIONS

PAGE = PAGES["docs/security.md"]


def test_every_permission_is_explained_and_no_other():
    explained = [
        name for row in table("permission", PAGE) for name in re.findall("`(.+?)`", row[0])
    ]

    assert sorted(name.replace("\\", "") for name in explained) == sorted(PERMISSIONS)


def test_every_bound_is_a_field():
    fields = {field.name for field in dataclasses.fields(StreamConfig)}
    bounds = {name for row in table("bound", PAGE) for name in re.findall("`(.+?)`", row[0])}

    assert bounds <= fields
    assert {name for name in fields if name.startswith("max_")} - {"max_retries"} <= bounds
