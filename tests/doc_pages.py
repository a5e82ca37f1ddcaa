"""The documentation taken apart: its blocks with their marks, code in running text, links and headings.

A block's info string is a language and, for code, a mark: `sh run` is executed, `sh validated` is checked.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[1]
CODE = ("sh", "bash", "console", "python", "yaml")
"""Languages whose blocks need a mark."""
PLAIN = ("text", "json")
"""Languages whose blocks have none."""
MARKS = ("run", "validated")

FENCED = re.compile(
    r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>.*)\n(?P<text>(?:.*\n)*?)(?P=indent)(?P=fence) *$", re.M
)
SPAN = re.compile(r"(?<!`)(?P<ticks>`+)(?!`)(?P<code>.+?)(?<!`)(?P=ticks)(?!`)", re.S)
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")
HEADING = re.compile(r"^#+ +(?P<title>.+?) *$", re.M)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block."""

    page: Path
    line: int
    info: str
    text: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]

    @property
    def mark(self) -> str:
        return self.info.partition(" ")[2]

    def __str__(self) -> str:
        return f"{_name(self.page)}:{self.line}"


@dataclass(frozen=True)
class Page:
    """A page of Markdown."""

    path: Path

    def __str__(self) -> str:
        return _name(self.path)

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def prose(self) -> str:
        """The text without its blocks."""
        return FENCED.sub("", self.text)

    @cached_property
    def blocks(self) -> list[Block]:
        return [
            Block(
                self.path,
                self.text[: found.start()].count("\n") + 1,
                found["info"],
                textwrap.dedent(found["text"]),
            )
            for found in FENCED.finditer(self.text)
        ]

    @cached_property
    def spans(self) -> list[str]:
        """Code in running text."""
        return [" ".join(found["code"].split()) for found in SPAN.finditer(self.prose)]

    @cached_property
    def links(self) -> list[str]:
        return [found["target"] for found in LINK.finditer(SPAN.sub("", self.prose))]

    @cached_property
    def anchors(self) -> set[str]:
        """What a link may name of this page, as GitHub makes it of the headings."""
        titles = (found["title"].lower() for found in HEADING.finditer(self.prose))
        return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


PAGES = [
    Page(ROOT / "README.md"),
    Page(ROOT / "CONTRIBUTING.md"),
    *map(Page, sorted((ROOT / "docs").rglob("*.md"))),
]
INDEX = Page(ROOT / "docs" / "README.md")
"""The page that links all pages of docs/."""


def _name(path: Path) -> str:
    """Return a page's path within the repository; several pages have the file name README.md."""
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def marked(mark: str, *languages: str) -> Iterator[Block]:
    """Yield the blocks of all pages with this mark, in these languages or in any."""
    for page in PAGES:
        yield from (b for b in page.blocks if b.mark == mark and b.language in (languages or CODE))
