"""The ``pylocks`` command."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    try:
        words = sys.argv[1:] if arguments is None else list(arguments)
        given = _parser(words[0] if words else "").parse_args(words)
        status: int = given.run(given)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader, `head` perhaps, has seen enough.  Leave nothing for the interpreter to flush.
        sys.stdout = None
        return 1


COMMANDS = {
    "stress": "stress.command",
    "bench": "bench.command",
    "ls": "observe.ls",
    "rm": "observe.ls",
    "top": "observe.top",
    "inspect": "observe.inspect",
    "doctor": "observe.doctor",
    "deadlocks": "deadlocks.command",
    "lab": "lab.command",
    "serve": "serve",
    "trace": "trace",
}
"""Command -> the module below pylocks whose add_parser() adds it."""


def _parser(command: str) -> argparse.ArgumentParser:
    """Of one command alone, if it is known: others may have much to import."""
    from pylocks import __version__

    parser = argparse.ArgumentParser(prog="pylocks", description="Fair ticket locks between processes.")
    parser.add_argument("--version", action="version", version=f"pylocks {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for module in dict.fromkeys([COMMANDS[command]] if command in COMMANDS else COMMANDS.values()):
        importlib.import_module(f"pylocks.{module}").add_parser(commands)
    ops = commands.add_parser(
        "ops",
        help="show the patch table of this process",
        description="Attach to a domain, which patches this process, and show every patch site.",
    )
    ops.add_argument("--json", action="store_true", help="as JSON on standard output")
    ops.set_defaults(run=_ops)
    return parser


def _ops(given: argparse.Namespace) -> int:
    import pylocks

    try:
        # Sites are patched at the first attach.
        with pylocks.Domain():
            rows = [asdict(op) for op in pylocks.ops()]
    except pylocks.PylocksError as error:
        print(f"pylocks ops: {error}", file=sys.stderr)
        return 1
    if given.json:
        print(json.dumps([{key: _plain(value) for key, value in row.items()} for row in rows], indent=1))
    else:
        _show_ops(rows)
    return 0


def _plain(value: Any) -> Any:
    return value.hex(" ") if isinstance(value, bytes) else value


def _show_ops(rows: list[dict[str, Any]]) -> None:
    """One line a site and its reason beneath it, so that the bytes stay in columns."""
    titles = ("op", "module", "address", "before", "after", "choice")
    lines = [
        (
            row["op"],
            row["module"],
            f"{row['address']:#x}",
            _plain(row["before"]) or "-",
            _plain(row["after"]) or "-",
            f"{row['choice']} ({row['kind']})",
        )
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(titles, *lines, strict=True)]
    for cells in (titles, *lines):
        print("  ".join(text.ljust(width) for text, width in zip(cells, widths, strict=True)).rstrip())
    print()
    width = max(len(row["op"]) for row in rows)
    for op, reason in dict.fromkeys((row["op"], row["reason"]) for row in rows):
        print(f"{op.ljust(width)}  {reason}")
