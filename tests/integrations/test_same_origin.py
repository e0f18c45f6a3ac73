"""integrations/same_origin.py: which names an app answers to."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Mapping

import pytest

from tests.web_servers import ROOT

Refusal = Callable[[str, Mapping[str, str]], str | None]


@pytest.fixture
def refusal(monkeypatch: pytest.MonkeyPatch) -> Refusal:
    monkeypatch.setenv("ALLOWED_HOSTS", "board.example.com 192.168.1.7")
    return runpy.run_path(str(ROOT / "integrations" / "same_origin.py"))["refusal"]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:80",
        "127.0.0.1:8000",
        "[::1]",
        "[::1]:8000",
        "board.example.com",
        "Board.example.com:8443",
        "192.168.1.7:8000",
    ],
)
def test_answers_to_its_own_names_at_any_port(refusal: Refusal, host: str):
    # Behind a proxy that speaks TLS the page's scheme isn't ours.
    for scheme in ("http", "https"):
        assert refusal("POST", {"host": host, "origin": f"{scheme}://{host.lower()}"}) is None


@pytest.mark.parametrize(
    "host",
    [
        "",
        ":8000",
        "localhost.",
        "localhost.example.com",
        "example.com",
        "other.board.example.com",
        "127.0.0.1:8000:1",
        "localhost:",
        "::1",
        "192.168.1.70",
        "a@localhost",
        "localhost/x",
    ],
)
def test_answers_to_no_other(refusal: Refusal, host: str):
    assert refusal("GET", {"host": host})
    assert refusal("GET", {})
