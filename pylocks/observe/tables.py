"""Tables on a terminal: with rich if it is there, in plain text otherwise."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["Column", "Row", "age", "clean", "memory", "plain_lines", "rich_table", "say", "show", "words"]


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


def plain_lines(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[str]:
    """The table in columns of spaces."""
    shown = _shown(columns, width)
    table = [[columns[n].title for n in shown], *([clean(row.cells[n]) for n in shown] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return [
        "  ".join(
            text.rjust(size) if columns[n].right else text.ljust(size)
            for text, size, n in zip(line, widths, shown, strict=True)
        ).rstrip()
        for line in table
    ]


def rich_table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Table:
    """The table for rich."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    shown = _shown(columns, width)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), show_edge=False)
    for n in shown:
        justify: Literal["left", "right"] = "right" if columns[n].right else "left"
        widest = max((len(row.cells[n]) for row in rows), default=0)
        least = None if columns[n].cut else max(widest, len(columns[n].title))
        table.add_column(
            columns[n].title, justify=justify, no_wrap=True, overflow="ellipsis", min_width=least
        )
    for row in rows:
        table.add_row(*(Text(clean(row.cells[n])) for n in shown), style=row.style)
    return table


def show(columns: Sequence[Column], rows: Sequence[Row], to: IO[str] | None = None) -> None:
    """Print the table; behind a pipe, whole."""
    to = to or sys.stdout
    console = console_for(to)
    if console is None:
        width = shutil.get_terminal_size().columns if to.isatty() else 1000
        print("\n".join(plain_lines(columns, rows, width)), file=to)
    else:
        console.print(rich_table(columns, rows, console.width))


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
