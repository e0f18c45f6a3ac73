"""Pages for files that pages link to and that are none themselves: tests, examples, apps.

So the site holds all that it speaks of, and a proof is one click away, without a network.
"""

from __future__ import annotations

import html
import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.transforms import SphinxTransform

# Where they lie in the site.
FOLDER = "source"
# What else a folder may hold.
UNSHOWN = {"__pycache__", ".pyc", ".png", ".svg"}
LANGUAGES = {".py": "python", ".html": "html", ".js": "javascript", ".css": "css", ".md": "md"}

Page = tuple[str, dict[str, Any], str]

# What is linked to, from the folder of the project on. Each build reads all pages anew.
linked: set[str] = set()


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_transform(LinkSources)
    app.connect("html-collect-pages", collect_pages)
    app.connect("build-finished", finish)
    return {"parallel_read_safe": False}


class LinkSources(SphinxTransform):
    """Points links to files and folders outside the site at the pages that are made for them."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        root = Path(self.env.srcdir)
        for kind in (addnodes.download_reference, addnodes.pending_xref):
            for link in list(self.document.findall(kind)):
                path = Path(self.env.relfn2path(link["reftarget"])[1])
                is_folder = kind is addnodes.pending_xref and path.is_dir()
                if link["reftype"] == "myst" and (is_folder or path.is_file()):
                    self._point(link, path.relative_to(root).as_posix())

    def _point(self, link: nodes.Element, path: str) -> None:
        linked.add(path)
        # The title of a link to a test is the test's name.
        title = link.get("reftitle", "")
        anchor = f"#{title}" if title.startswith("test_") else ""
        address = relative_address(self.env.docname, path) + anchor
        link.replace_self(nodes.reference("", "", *link.children, refuri=address, internal=True))


def collect_pages(app: Sphinx) -> Iterator[Page]:
    """A page for each file that is linked to, and for all in a folder that is."""
    root = Path(app.srcdir)
    shown = set()
    for path in linked:
        found = [root / path, *(root / path).rglob("*")]
        shown.update(each.relative_to(root) for each in found if is_shown(each))
    for path in sorted(shown):
        name = path.as_posix()
        body = folder_body(path, shown) if (root / path).is_dir() else file_body(app, root / path)
        context = {"title": name, "body": f"<h1>{html.escape(name)}</h1>{body}"}
        yield page_name(name), context, "page.html"


def is_shown(path: Path) -> bool:
    return UNSHOWN.isdisjoint([*path.parts, path.suffix])


def folder_body(folder: Path, shown: set[Path]) -> str:
    items = [
        f'<li><a href="{relative_address(page_name(folder.as_posix()), path.as_posix())}">'
        f"{html.escape(path.relative_to(folder).as_posix())}</a></li>"
        for path in sorted(shown)
        if folder in path.parents
    ]
    return f"<ul>{''.join(items)}</ul>"


def file_body(app: Sphinx, path: Path) -> str:
    assert isinstance(app.builder, StandaloneHTMLBuilder)
    language = LANGUAGES.get(path.suffix, "text")
    shown = app.builder.highlighter.highlight_block(path.read_text(), language)
    return re.sub(r'<span class="nf">(test_\w+)', r'<span class="nf" id="\1">\1', shown)


def page_name(path: str) -> str:
    return f"{FOLDER}/{path}"


def relative_address(page: str, path: str) -> str:
    return posixpath.relpath(page_name(path), posixpath.dirname(page)) + ".html"


def finish(app: Sphinx, error: Exception | None) -> None:
    """The first page under the name that servers look for, and the pictures of its raw HTML."""
    if error is None:
        site = Path(app.outdir)
        shutil.copy(site / f"{app.config.root_doc}.html", site / "index.html")
        for picture in (Path(app.srcdir) / "docs").glob("*.png"):
            shutil.copy(picture, site / "docs")
