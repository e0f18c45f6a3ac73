"""The site that scripts/docs builds: without a network, for readers without one."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

import streamy_redis
import streamy_redis.prometheus
import streamy_redis.testing
from tests.child import new_folder
from tests.ports import free_port

from .document import PAGES, ROOT

# What makes a page fetch something by itself.
FETCHED = {"script": "src", "link": "href", "img": "src", "source": "srcset", "iframe": "src"}
# A network that refuses everything, for who may not have none.
REFUSING = dict.fromkeys(("http_proxy", "https_proxy", "all_proxy"), "http://127.0.0.1:9")


class Page(HTMLParser):
    """What a page links to, fetches, and can be linked to by."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.anchors.add(given.get("id", ""))
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif FETCHED.get(tag) in given:
            self.fetched.append(given[FETCHED[tag]])


@pytest.fixture(scope="module")
def site() -> Iterator[Path]:
    folder = new_folder("site") / "site"
    built = subprocess.run(
        [*without_network(), ROOT / "scripts" / "docs", folder],
        capture_output=True,
        text=True,
        cwd=folder.parent,
        env={
            **os.environ,
            **REFUSING,
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        },
    )
    assert built.returncode == 0, built.stdout + built.stderr
    return folder


def without_network() -> list[str]:
    command = ["unshare", "--net"]
    try:
        may = subprocess.run([*command, "true"], capture_output=True).returncode == 0
    except FileNotFoundError:
        may = False
    return command if may else []


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html")}


def test_every_page_is_there(site: Path):
    expected = {site / name for name in PAGES} | {site / "index.md"}

    assert [path for path in expected if not path.with_suffix(".html").exists()] == []


def test_links_lead_somewhere(pages: dict[Path, Page]):
    lost = []
    for path, page in pages.items():
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if target not in pages or (anchor and anchor not in pages[target].anchors):
                lost.append((path.name, link))

    assert lost == []


def test_nothing_comes_from_outside(site: Path, pages: dict[Path, Page]):
    for path, page in pages.items():
        for address in page.fetched:
            parts = urlsplit(address.split(" ")[0])
            assert not parts.scheme or parts.scheme == "data", (path, address)
            assert not parts.netloc, (path, address)
            assert (path.parent / unquote(parts.path)).resolve().exists(), (path, address)
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", style.read_text()), style


def test_a_proof_is_on_the_page_of_its_test(pages: dict[Path, Page]):
    proofs = [link for page in pages.values() for link in page.links if "#test_" in link]

    assert len(proofs) > 40


@pytest.mark.parametrize(
    "module",
    [streamy_redis, streamy_redis.testing, streamy_redis.prometheus],
    ids=lambda module: module.__name__,
)
def test_the_reference_has_every_public_name(site: Path, module: ModuleType):
    text = (site / "docs" / "reference.html").read_text()
    missing = [name for name in module.__all__ if f'id="{module.__name__}.{name}"' not in text]

    assert missing == []


@pytest.fixture
def address(site: Path) -> Iterator[str]:
    """The site on a server of files."""
    handler = functools.partial(QuietHandler, directory=site)
    with ThreadingHTTPServer(("127.0.0.1", free_port()), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_the_search_asks_nobody_else(page: Any, address: str):
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    page.goto(f"{address}search.html?q=idempotency_key")

    page.wait_for_selector("#search-results li a")
    # Left while it fetches what it quotes, the page would tell of an error.
    page.wait_for_load_state("networkidle")
    found = page.locator("#search-results li a").all_inner_texts()
    assert "Reference" in " ".join(found)
    assert all(url.startswith(address) for url in asked)
