"""Tables on a terminal: with rich if it is there, in plain text otherwise."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

__all__ = [
    "Column",
    "Line",
    "Row",
    "age",
    "as_text",
    "clean",
    "memory",
    "say",
    "show",
    "table_lines",
    "words",
]


Line = tuple[str, str]
"""A line of a picture and its style, as rich has it."""
_LEAST = 6
"""No column is cut to less."""


@dataclass(frozen=True)
class Column:
    """A column of a table."""

    title: str
    right: bool = False
    wide: int = 0
    """Shown from so many columns of the terminal on."""
    cut: bool = False
    """Where there is no room for all, this one is shortened."""


@dataclass(frozen=True)
class Row:
    """A line of a table, one text for each column; style: as rich has it."""

    cells: Sequence[str]
    style: str = ""


def clean(text: str) -> str:
    """Without what could move a terminal's cursor: names in a segment are not ours."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def words(error: Exception) -> str:
    """What the error says, without the number of the system's error."""
    known = isinstance(error, OSError) and error.strerror
    return clean(str(known or error))


def _shown(columns: Sequence[Column], width: int) -> list[int]:
    return [number for number, column in enumerate(columns) if column.wide <= width]


def table_lines(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[Line]:
    """The table, in columns of spaces; those that may be cut are, if it is wider than that."""
    shown = _shown(columns, width)
    table = [[columns[n].title for n in shown], *([clean(row.cells[n]) for n in shown] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    _narrow(widths, [columns[n].cut for n in shown], width)
    lines = [
        "  ".join(
            _fit(text, size, columns[n].right) for text, size, n in zip(line, widths, shown, strict=True)
        ).rstrip()
        for line in table
    ]
    rule = "\N{BOX DRAWINGS LIGHT HORIZONTAL}" * min(width, sum(widths) + 2 * len(widths) - 2)
    return [(lines[0], "bold"), (rule, "dim"), *zip(lines[1:], (row.style for row in rows), strict=True)]


def _narrow(widths: list[int], cut: list[bool], width: int) -> None:
    """Take from the widest of those that may be cut until the table fits, or nothing is left to take."""
    while sum(widths) + 2 * len(widths) - 2 > width:
        widest = max((n for n in range(len(widths)) if cut[n]), key=widths.__getitem__, default=None)
        if widest is None or widths[widest] <= _LEAST:
            return
        widths[widest] -= 1


def _fit(text: str, size: int, right: bool) -> str:
    if len(text) > size:
        return text[: size - 1] + "\N{HORIZONTAL ELLIPSIS}"
    return text.rjust(size) if right else text.ljust(size)


def as_text(lines: Sequence[Line]) -> Text:
    """For rich: a line each, those too long for the screen cut."""
    from rich.text import Text

    return Text("\n", no_wrap=True, overflow="ellipsis", end="").join(
        Text(clean(line), style=style) for line, style in lines
    )


def show(columns: Sequence[Column], rows: Sequence[Row], to: IO[str] | None = None) -> None:
    """Print the table; behind a pipe, whole."""
    to = to or sys.stdout
    console = console_for(to)
    if console is None:
        width = shutil.get_terminal_size().columns if to.isatty() else 1000
        title, _, *lines = table_lines(columns, rows, width)
        print("\n".join(line for line, _ in (title, *lines)), file=to)
    else:
        console.print(as_text(table_lines(columns, rows, console.width)))


def say(text: str, style: str = "", to: IO[str] | None = None) -> None:
    """Print a line."""
    to = to or sys.stdout
    console = console_for(to)
    if console is None:
        print(clean(text), file=to)
        return
    from rich.text import Text

    console.print(Text(clean(text), style=style), soft_wrap=True)


def console_for(to: IO[str]) -> Console | None:
    """rich's console, if there is a terminal and rich."""
    if not to.isatty():
        return None
    try:
        from rich.console import Console
    except ImportError:
        return None
    return Console(file=to, highlight=False)


def age(seconds: float) -> str:
    """``12 s``, ``3 min``, ``5 h``, ``2 d``."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def memory(size: float) -> str:
    """``212 KiB``, ``6.7 MiB``."""
    units = ["B", "KiB", "MiB", "GiB"]
    while size >= 1000 and len(units) > 1:
        size, _ = size / 1024, units.pop(0)
    return f"{size:.0f} {units[0]}" if size >= 10 or units[0] == "B" else f"{size:.1f} {units[0]}"
