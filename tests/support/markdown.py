"""Blocks of code in Markdown, and what comments before them say of how they are run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

BEFORE = "<!-- run first:"
NOT_RUN = "<!-- not run:"
RUN_BY = re.compile(r"^<!-- run by (tests/\w+\.py) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block of code."""

    line: int
    """Of its first line of code in the file, from 1."""
    language: str
    """As written behind the fence; "" if it is indented."""
    text: str
    reason: str | None = None
    """Why it is not run, of the comment `<!-- not run: WHY -->` before it."""


def blocks(path: Path) -> list[Block]:
    """All of a file, in order; the content of a comment `<!-- run first: CODE -->` is one in Python."""
    found: list[Block] = []
    reason = None
    for token in MarkdownIt("commonmark").parse(path.read_text()):
        start = token.map[0] if token.map else 0
        text = token.content.strip()
        if token.type == "html_block" and text.startswith(BEFORE):
            code = token.content.partition(BEFORE)[2].rpartition("-->")[0]
            found.append(Block(start + 1, "python", code))
        elif token.type == "html_block" and text.startswith(NOT_RUN):
            reason = text.removeprefix(NOT_RUN).removesuffix("-->").strip()
            assert reason, f"{path}:{start + 1}: a comment says that a block is not run, and not why"
        elif token.type == "fence":
            found.append(Block(start + 2, token.info.strip(), token.content, reason))
            reason = None
        elif token.type == "code_block":
            found.append(Block(start + 1, "", token.content))
        elif reason is not None:
            raise AssertionError(f"{path}:{start + 1}: the comment before is about no block of code")
    return found


def run_by(path: Path) -> str | None:
    """The tests that run a file's blocks in a way of their own, of a comment `<!-- run by TESTS -->`."""
    found = RUN_BY.search(path.read_text())
    return found[1] if found else None
