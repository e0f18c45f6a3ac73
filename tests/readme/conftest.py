"""Chromium, for the pages that pages show."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    # On CI its absence is a failure.
    if not CHROMIUM and "CI" not in os.environ:
        pytest.skip("no Chromium on PATH")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"],
        )
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Any) -> Iterator[Any]:
    """Tabs that share what they know, and take any certificate; a script's error is a failure."""
    errors: list[str] = []
    context = chromium.new_context(ignore_https_errors=True)
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context
    context.close()
    assert errors == []


@pytest.fixture
def page(context: Any) -> Any:
    return context.new_page()
