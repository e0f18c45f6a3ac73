"""Tabs for the pages that pages show."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def page(context: Any) -> Any:
    return context.new_page()
