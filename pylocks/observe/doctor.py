"""``pylocks doctor``: what this machine offers, what pylocks made of it, and what would be better."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from dataclasses import asdict

from pylocks.observe import tables
from pylocks.observe.checks import Check, Facts, checks

__all__ = ["add_parser"]

_STYLES = {"ok": "green", "note": "yellow", "bad": "bold red"}


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``doctor`` to the command line."""
    parser = commands.add_parser(
        "doctor",
        help="say what this machine offers, what was chosen and why",
        description="Make a lock in this process, and say what the machine offers, what was chosen and why, "
        "and what would be better. Exit status: 0, or 1 if something keeps pylocks from working.",
    )
    parser.add_argument("--json", action="store_true", help="as JSON on standard output")
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    found = list(checks(Facts.look()))
    if given.json:
        print(json.dumps([asdict(check) for check in found], indent=1))
    else:
        for check in found:
            _show(check, max(len(check.name) for check in found))
    return 1 if any(check.grade == "bad" for check in found) else 0


def _show(check: Check, width: int) -> None:
    """A line for what was found, and one each for the rest if there is any."""
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 110
    said = [(check.found, _STYLES[check.grade] if check.grade != "ok" else "")]
    said += [(f"chosen: {check.chosen}", "dim")] if check.chosen else []
    said += [(f"better: {check.better}", "")] if check.better else []
    for number, (text, style) in enumerate(said):
        head = f"{check.grade:4}  {check.name.ljust(width)}  " if number == 0 else " " * (width + 8)
        lines = textwrap.wrap(text, max(30, columns - width - 9)) or [""]
        for line in lines:
            tables.say(head + line, style)
            head = " " * (width + 8)
