"""The results on a terminal: with rich if it is there, in plain text otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Literal

from . import terminal, units
from .results import Row
from .summary import sentences

if TYPE_CHECKING:
    from rich.console import Console

WIDE = 108  #: terminal columns from which on all columns are shown


@dataclass(frozen=True)
class Column:
    """A column of the table."""

    title: str
    always: bool = True  #: False: only on wide terminals
    right: bool = True


COLUMNS = (
    Column("load"),
    Column("lock", right=False),
    Column("acq/s"),
    Column("Jain"),
    Column("p50 wait"),
    Column("p99"),
    Column("p99.9", always=False),
    Column("max"),
    Column("parks", always=False),
    Column("kicks", always=False),
    Column("CPU s", always=False),
    Column("", right=False),
)


def cells(row: Row) -> list[str]:
    """A row's text, one for each of COLUMNS."""
    waits = row["wait_ns"]
    return [
        f"{units.factor(round(row['overcommit'], 2))} {row['processes']:>3}",
        row["slow_path"],
        units.count(row["acquisitions_per_s"]),
        "–" if row["jain"] is None else f"{row['jain']:.2f}",
        units.duration(waits["p50"]),
        units.duration(waits["p99"]),
        units.duration(waits["p999"]),
        units.duration(waits["max"]),
        units.count(row["parks"]),
        units.count(row["kicks"]),
        f"{row['cpu_seconds']:.1f}",
        remark(row),
    ]


def remark(row: Row) -> str:
    """What is special about how the row ended, in a few words."""
    said = []
    if row["violations"]:
        said.append(f"{row['violations']:,} violations")
    if row["ended"] in ("failed", "interrupted", "stalled"):
        said.append("cut short" if row["ended"] == "interrupted" else str(row["ended"]))
    if row["killed"]:
        said.append(f"{row['killed']} stuck")
    return ", ".join(said)


def legend(result: dict[str, Any]) -> list[str]:
    """What a newcomer needs to read the table."""
    options = result["options"]
    rows = result["rows"]
    said = [
        f"load: overcommit and processes; {options['locks']} lock{'s' * (options['locks'] != 1)}, "
        f"{units.duration(options['cs_ns'])} under it, {units.duration(options['outside_ns'])} between"
    ]
    if any(row["protocol"] is None for row in rows):
        said.append("mp: multiprocessing.Lock")
    if any(row["killed"] for row in rows):
        said.append("stuck: killed in the queue when the time was over; the wait counts as far as it went")
    return said


def show(result: dict[str, Any], to: IO[str]) -> None:
    """Print the table, what it shows, and the verdict."""
    terminal.show(result, to, _rich, _plain)


def _rich(result: dict[str, Any], console: Console) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    wide = console.width >= WIDE
    shown = [column.always or wide for column in COLUMNS]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False)
    for column, visible in zip(COLUMNS, shown, strict=True):
        if visible:
            # The remark alone may be broken where the terminal is narrow.
            justify: Literal["left", "right"] = "right" if column.right else "left"
            table.add_column(column.title, justify=justify, no_wrap=column.title != "")
    before: float | None = None
    for row in result["rows"]:
        if before is not None and row["overcommit"] != before:
            table.add_section()
        before = row["overcommit"]
        style = "red" if row["violations"] else "yellow" if row["killed"] else ""
        table.add_row(
            *[text for text, visible in zip(cells(row), shown, strict=True) if visible], style=style
        )
    console.print()
    console.print(table)
    console.print(Text("; ".join(legend(result)), style="dim"))
    console.print()
    for sentence in sentences(result):
        console.print(Text(sentence))
    for note in terminal.notes(result):
        console.print(Text(note, style="dim"))


def _plain(result: dict[str, Any], to: IO[str], width: int) -> None:
    shown = [number for number, column in enumerate(COLUMNS) if column.always or width >= WIDE]
    lines = [[COLUMNS[number].title for number in shown]]
    lines += [[cells(row)[number] for number in shown] for row in result["rows"]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    print(file=to)
    for line in lines:
        padded = [
            text.rjust(size) if COLUMNS[number].right else text.ljust(size)
            for text, size, number in zip(line, widths, shown, strict=True)
        ]
        print("  ".join(padded).rstrip(), file=to)
    print(file=to)
    terminal.fill(["; ".join(legend(result)), *sentences(result), *terminal.notes(result)], to, width)
