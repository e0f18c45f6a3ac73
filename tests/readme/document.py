"""The README and docs/*.md as their readers see them: blocks of code, tables, links, commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "EXAMPLES",
    "PAGES",
    "README",
    "ROOT",
    "Block",
    "anchors",
    "blocks",
    "command",
    "commands",
    "links",
    "proofs",
    "table",
    "without_blocks",
]

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = ROOT / "docs" / "examples"
README = (ROOT / "README.md").read_text()
# All that a reader is led to, by its path.
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text()
    for pattern in (
        "README.md",
        "CONTRIBUTING.md",
        "benchmarks/README.md",
        "docs/*.md",
        "integrations/*/README.md",
    )
    for path in sorted(ROOT.glob(pattern))
}

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# What the reference takes from docstrings is no code.
_DIRECTIVE = re.compile(r"^```{eval-rst}\n.*?^```$", re.MULTILINE | re.DOTALL)
_EXAMPLE = re.compile(r"\]\((?:docs/)?(examples/[^)]+)\)")
_LINK = re.compile(r'\]\(([^)\s]+)(?: "[^"]*")?\)|(?:src|srcset|href)="([^"]+)"')
_PROOF = re.compile(r'\]\(([^)\s]*\btests/[^)\s]+\.py) "(\w+)"\)')
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block, and the example that the text above it links to."""

    language: str
    text: str
    path: Path | None

    def __str__(self) -> str:
        return self.path.name if self.path else self.text.partition("\n")[0]

    @property
    def after(self) -> str:
        """The text; of a diff, what it leads to."""
        if self.language != "diff":
            return self.text
        kept = [line for line in self.text.splitlines() if not line.startswith("-")]
        return "".join(f"{line[1:]}\n" for line in kept)


def _find_blocks(text: str) -> Iterator[Block]:
    end = 0
    names: list[str] = []
    for found in _FENCE.finditer(text):
        names += _EXAMPLE.findall(text[end : found.start()])
        end = found.end()
        language, code = found.groups()
        is_shown = names and language not in ("sh", "text")
        yield Block(language, code, ROOT / "docs" / names.pop(0) if is_shown else None)
    assert not names, f"linked, but not shown: {names}"


def blocks(text: str = README) -> list[Block]:
    return list(_find_blocks(text))


def without_blocks(text: str) -> str:
    """All that is no block of code."""
    return _FENCE.sub("", _DIRECTIVE.sub("", text))


def commands(text: str) -> list[str]:
    """The lines of the blocks of commands."""
    shown = [block.text for block in blocks(text) if block.language == "sh"]
    return "".join(shown).splitlines()


def links(text: str = README) -> list[str]:
    """Where a page points to, images included."""
    return [link or source for link, source in _LINK.findall(without_blocks(text))]


def proofs(text: str = README) -> list[tuple[str, str]]:
    """The links to tests: file, and the name of the test, which is the link's title."""
    return _PROOF.findall(text)


def anchors(text: str = README) -> list[str]:
    """Of the headings, as GitHub makes them."""
    plain = [re.sub(r"[^\w\- ]", "", heading).lower() for heading in _HEADING.findall(text)]
    return [heading.replace(" ", "-") for heading in plain]


def table(header: str, text: str) -> list[list[str]]:
    """The rows under the header that begins with this word."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"| {header} |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return rows


def command(ending: str) -> str:
    """The line of a block of commands that ends so."""
    return next(line for line in commands(README) if line.endswith(ending))
