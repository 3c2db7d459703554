"""What all results have in common on a terminal: with rich if it is there, in plain text otherwise."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Callable, Iterable
from typing import IO, TYPE_CHECKING, Any

from . import host
from .summary import finding_lines, verdict_line

if TYPE_CHECKING:
    from rich.console import Console

Result = dict[str, Any]
VERDICTS = {"pass": "bold green", "fail": "bold red"}


def show(
    result: Result,
    to: IO[str],
    rich: Callable[[Result, Console], None],
    plain: Callable[[Result, IO[str], int], None],
) -> None:
    """Print the host, the figures, what was found, and the verdict.

    rich(result, console) or plain(result, to, columns) prints the figures and what is to be said of them.
    """
    try:
        from rich.console import Console
        from rich.text import Text
    except ImportError:
        width = shutil.get_terminal_size().columns if to.isatty() else 120
        print(host.line(result["host"]), file=to)
        plain(result, to, width)
        fill([*finding_lines(result), verdict_line(result)], to, width)
        return
    console = Console(file=to, highlight=False)
    console.print(Text(host.line(result["host"]), style="dim"))
    rich(result, console)
    for line in finding_lines(result):
        console.print(Text(line, style="red"))
    console.print(Text(verdict_line(result), style=VERDICTS.get(result["verdict"], "bold yellow")))


def fill(texts: Iterable[str], to: IO[str], width: int) -> None:
    """Print each as a paragraph of so many columns."""
    for text in texts:
        print(textwrap.fill(text, width), file=to)


def notes(result: Result) -> list[str]:
    """What disturbed the run."""
    return [f"note: {warning}" for warning in result["warnings"]]
