"""The pages of the project: their headings, and their fenced blocks, which tests run as they stand there."""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import dedent

HOUSE = Path(__file__).parent.parent


@dataclass(frozen=True)
class Block:
    """The lines between two fences, without the indentation of the list that they stand in."""

    page: str
    heading: str
    text: str


@dataclass(frozen=True)
class Page:
    headings: tuple[str, ...]
    blocks: tuple[Block, ...]


def pages() -> list[str]:
    """Every page, from the top of the house."""
    found = [*HOUSE.glob("*.md"), *HOUSE.glob("docs/**/*.md"), *HOUSE.glob("tests/**/README.md")]
    return sorted(str(path.relative_to(HOUSE)) for path in found)


def text(page: str) -> str:
    return (HOUSE / page).read_text()


@cache
def read(page: str) -> Page:
    headings: list[str] = []
    blocks: list[Block] = []
    within: list[str] | None = None
    for line in text(page).splitlines(keepends=True):
        if line.lstrip().startswith("```"):
            if within is None:
                within = []
            else:
                blocks.append(Block(page, headings[-1], dedent("".join(within))))
                within = None
        elif within is not None:
            within.append(line)
        elif heading := re.match(r"#+ (.+)$", line):
            headings.append(heading[1])
    assert within is None, f"{page}: its last block has no end"
    return Page(tuple(headings), tuple(blocks))


def block(page: str, heading: str, having: str = "") -> str:
    """The lines of the one block under ``heading`` of ``page`` that has the words ``having``.

    Tests call it with literals: tests/test_documents.py reads in them which blocks are run.
    """
    return found(page, heading, having).text


def found(page: str, heading: str, having: str = "") -> Block:
    assert heading in read(page).headings, f"{page} has no heading {heading!r}"
    blocks = [each for each in read(page).blocks if each.heading == heading and having in each.text]
    assert len(blocks) == 1, f"{page}, {heading!r} has {len(blocks)} blocks with {having!r}, not one"
    return blocks[0]


def anchor(heading: str) -> str:
    """The name by which a link reaches ``heading``."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")
