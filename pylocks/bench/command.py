"""``pylocks bench``: from arguments to an exit status."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pylocks.stress.options import check_writable

if TYPE_CHECKING:
    from .options import Options

__all__ = ["add_parser", "main", "progress"]

PASS, MISSED, USAGE = 0, 1, 2
LEAST_SECONDS, MOST_SECONDS = 0.01, 600.0
MOST_ROUNDS = 10_000


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``bench`` to the command line; what it needs is imported when it runs."""
    parser = commands.add_parser(
        "bench",
        help="measure pylocks beside other locks",
        description="Measure pylocks beside other locks in interleaved rounds. A C compiler is needed: the "
        "locks of C are compiled when they are first used. Exit status: 0, 1 with --check if a bar is "
        "missed, 2 usage, 130 interrupted.",
    )
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help="which to run; see --list (default: all)")
    add("--list", action="store_true", help="say which scenarios, loads and subjects there are")
    add("--quick", action="store_true", help="short slices, three rounds, fewer loads")
    add("--rounds", type=int, help="rounds of which medians are taken (default: 5)")
    add("--seconds", type=float, help="length of a slice (default: 0.3)")
    add("--seed", type=int, default=1, help="of the order and of the work outside (default: %(default)s)")
    add("--subjects", type=_list, default=(), metavar="LIST", help="only these, as pylocks:futex,adaptive")
    add("--cells", type=_list, default=(), metavar="LIST", help="only these loads, as 8:S,64 or S,M")
    add("--json", metavar="FILE", help="write everything, samples included; - for standard output")
    add("--compare", metavar="FILE", help="compare with a saved run")
    add("--against", metavar="OTHER", help="another checkout or interpreter, measured in the same rounds")
    add("--plot", metavar="FILE", help="draw throughput and longest waits, as .png or .svg")
    add("--check", action="store_true", help="exit with status 1 if a bar is missed")
    add("--no-progress", action="store_true", help="say nothing until the tables")
    parser.set_defaults(run=lambda given: main(parser, given))


def _list(text: str) -> tuple[str, ...]:
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise argparse.ArgumentTypeError(f"{text!r}: a name is missing between commas")
    return parts


def main(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Run what the arguments ask for; returns the exit status."""
    from . import build, compare, report, run
    from .process import ProcessError

    if given.list:
        _show_list()
        return PASS
    options = _options(parser, given)
    saved = None
    if given.compare is not None:
        try:
            saved = compare.load(Path(given.compare))
        except compare.BadFileError as error:
            parser.error(f"--compare: {error}")
    _check_outputs(parser, given)
    with progress(given.no_progress) as tell:
        try:
            result = run.run(options, tell)
        except (build.CompilerError, ProcessError) as error:
            print(f"pylocks bench: {error}", file=sys.stderr)
            return USAGE
    more = [] if saved is None else list(compare.tables(result, saved, Path(given.compare).name))
    report.show(result, sys.stderr if given.json == "-" else sys.stdout, more=more)
    if given.json == "-":
        json.dump(result, sys.stdout)
        print()
    elif given.json is not None:
        Path(given.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if given.plot is not None:
        from .charts import save

        save(result, given.plot)
    return MISSED if given.check and any(bar["met"] is False for bar in result["bars"]) else PASS


def _options(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Options:
    """What is asked for; exits with status 2 and a message if that can't be done."""
    from . import options as opts
    from .lineup import contenders
    from .scenarios import SCENARIOS, scenario
    from .targets import BadTargetError, other
    from .uncontended.cases import OURS

    try:
        chosen = [scenario(name) for name in given.scenarios] or list(SCENARIOS)
        contenders(given.subjects)
    except LookupError as error:
        parser.error(str(error.args[0]))
    for name in given.subjects:
        if not any(name in one.lineup for one in chosen):
            parser.error(f"--subjects: {name} takes no part in {', '.join(one.name for one in chosen)}")
    against = None
    if given.against is not None:
        try:
            against = other(given.against)
        except BadTargetError as error:
            parser.error(f"--against: {error}")
    rounds = given.rounds if given.rounds is not None else opts.QUICK_ROUNDS if given.quick else opts.ROUNDS
    seconds = (
        given.seconds if given.seconds is not None else opts.QUICK_SECONDS if given.quick else opts.SECONDS
    )
    if not 1 <= rounds <= MOST_ROUNDS:
        parser.error(f"--rounds: {rounds} is not between 1 and {MOST_ROUNDS}")
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        parser.error(f"--seconds: {seconds:g} is not between {LEAST_SECONDS:g} and {MOST_SECONDS:g}")
    found = opts.Options(
        tuple(given.scenarios), given.quick, rounds, seconds, given.seed, given.subjects, given.cells, against
    )
    names = [cell.name for one in chosen for cell in one.cells]
    if any(one.measure is not None for one in chosen):
        names += OURS
    for cell in given.cells:
        if not any(cell in (name, *name.split(":")) for name in names):
            parser.error(f"--cells: there is no {cell} in {', '.join(dict.fromkeys(names))}")
    return found


def _check_outputs(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Say now what would otherwise be found out after minutes of work."""
    for option, name in (("json", given.json), ("plot", given.plot)):
        check_writable(parser, option, name)
    if given.plot is not None:
        drawn = {"two", "overcommit", "python"}
        if given.scenarios and not drawn & set(given.scenarios):
            parser.error(f"--plot draws {', '.join(sorted(drawn))}; run one of them")
        if Path(given.plot).suffix not in (".png", ".svg"):
            parser.error(f"--plot: {given.plot} must end in .png or .svg")
        try:
            importlib.import_module("matplotlib")
        except ImportError:
            parser.error('--plot needs matplotlib, which is not installed: pip install "pylocks[cli]"')


def _show_list() -> None:
    from .scenarios import SCENARIOS

    for one in SCENARIOS:
        print(f"{one.name}: {one.meaning}")
        if one.cells:
            print(f"    loads     {', '.join(cell.name for cell in one.cells)}")
            print(f"    subjects  {', '.join(one.lineup)}")


@contextmanager
def progress(silent: bool) -> Iterator[Callable[[str], None]]:
    """Says on a terminal what is being measured."""
    if silent or not sys.stderr.isatty():
        yield lambda text: None
        return
    try:
        from rich.console import Console
    except ImportError:
        yield lambda text: print(text, file=sys.stderr)
        return
    console = Console(stderr=True)
    # Drawn only where something changes: drawing takes CPU time from what is measured.
    with console.status("starting", refresh_per_second=1) as status:
        yield status.update
