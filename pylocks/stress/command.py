"""The command: from arguments to an exit status."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

from . import options as opts
from . import progress, runner, table
from .chaos import table as chaos

PASS, FAIL, USAGE, INTERRUPTED = 0, 1, 2, 130


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``stress`` to the command line."""
    parser = commands.add_parser(
        "stress",
        help="let processes fight over locks, and verify while they do",
        description="Processes fight over locks while mutual exclusion, ticket order and the absence of "
        "lost waiters are verified. Exit status: 0 pass, 1 violation, 2 usage, 130 interrupted. "
        "With --chaos, processes are killed, stopped and interrupted meanwhile.",
    )
    opts.add_arguments(parser)
    parser.set_defaults(run=lambda given: main(parser, given))


def main(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Run what the arguments ask for; returns the exit status."""
    options = opts.from_arguments(parser, given)
    if options.html or options.png:
        _need_matplotlib(parser)
    planned = len(options.plan())
    shown = progress.choose(planned, options.seconds, options.acquisitions, wanted=options.progress)
    result = runner.run(options, shown)
    # JSON on standard output is for programs, and has it to itself.
    show = chaos.show if options.chaos else table.show
    show(result, sys.stderr if options.json == "-" else sys.stdout)
    if options.json == "-":
        json.dump(result, sys.stdout)
        print()
    elif options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")
    if options.html:
        from .html import page

        Path(options.html).write_text(page(result), encoding="utf-8")
    if options.png:
        from .charts import save_png

        save_png(result, options.png)
    if result["interrupted"]:
        return INTERRUPTED
    return FAIL if result["verdict"] == "fail" else PASS


def _need_matplotlib(parser: argparse.ArgumentParser) -> None:
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        parser.error('pictures need matplotlib, which is not installed: pip install "pylocks[cli]"')
