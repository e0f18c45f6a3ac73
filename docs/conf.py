"""The site of README.md, docs/ and integrations/: how Sphinx makes it (scripts/docs)."""

from __future__ import annotations

import sys
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

# What a reader is led to, by caption. A page that isn't there is left out; one that isn't here
# stands under the last caption.
NAVIGATION = {
    "Use it": [
        "docs/quick-start",
        "docs/recipes",
        "docs/readers",
        "docs/testing",
        "docs/reference",
        "docs/configuration",
        "docs/moving-over",
    ],
    "Run it": [
        "docs/deploying",
        "docs/watching",
        "docs/security",
        "docs/command-line",
        "docs/performance",
    ],
    "Understand it": ["docs/how-it-works", "docs/reliability"],
    "Apps to start from": [],
    "More": ["CHANGELOG", "CONTRIBUTING", "benchmarks/README"],
}

project = "streamy-redis"
root_doc = "README"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "docs/*.md",
    "integrations/*/README.md",
]
exclude_patterns = [".*", "site"]
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sources"]

# As GitHub makes them, for links to headings.
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = "streamy-redis"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
smartquotes = False
pygments_style = "friendly"
pygments_dark_style = "monokai"


def setup(app: Sphinx) -> None:
    app.connect("source-read", _navigate)


def _navigate(app: Sphinx, name: str, source: list[str]) -> None:
    """Adds the navigation to the first page, which other readers see without it."""
    if name == root_doc:
        listed = {page for pages in NAVIGATION.values() for page in pages} | {root_doc}
        more = sorted(app.env.found_docs - listed)
        apps = [page for page in more if page.startswith("integrations/")]
        found = {**NAVIGATION, "Apps to start from": apps}
        found["More"] = [*(page for page in more if page not in apps), *NAVIGATION["More"]]
        for caption, pages in found.items():
            there = [page for page in pages if page in app.env.found_docs]
            source[0] += _toctree(caption, there)


def _toctree(caption: str, pages: list[str]) -> str:
    lines = ["", "", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""]
    return "\n".join(lines) if pages else ""
