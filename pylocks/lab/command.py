"""``pylocks lab``: from arguments to an exit status."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pylocks.stress import units
from pylocks.stress.options import check_writable

if TYPE_CHECKING:
    from .run import Options

__all__ = ["add_parser", "main"]

PASS, UNEXPECTED, USAGE = 0, 1, 2
SECONDS, QUICK_SECONDS = 1.0, 0.3
ROUNDS, QUICK_ROUNDS = 3, 2
LEAST_STEAL, MOST_STEAL = 0.05, 0.95
LEAST_PERIOD_NS, MOST_PERIOD_NS = 2_000_000, 1_000_000_000
LEAST_SECONDS, MOST_SECONDS = 0.05, 600.0
MOST_ROUNDS = 1_000


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``lab`` to the command line; what it needs is imported when it runs."""
    parser = commands.add_parser(
        "lab",
        help="experiments on the preemption of lock holders and waiters",
        description="Stop processes that hold a lock, or are next in line, as a hypervisor does, and see "
        "what that costs under each slow path. A C compiler is needed. Exit status: 0, 1 with --check if "
        "something is not as expected, 2 usage, 130 interrupted.",
    )
    add = parser.add_argument
    add("scenarios", nargs="*", metavar="SCENARIO", help="which to run; see --list (default: all)")
    add("--list", action="store_true", help="say which scenarios there are, and what is expected of them")
    add("--quick", action="store_true", help="short slices, two rounds, fewer loads")
    add("--cpus", type=int, metavar="N", help="CPUs that the vCPUs may use (default: all)")
    add("--steal", type=_steal, metavar="PART", help="of each period, that is stolen (default: 0.5)")
    add("--period", type=_period, default=20_000_000, metavar="TIME", help="of the thief (default: 20ms)")
    add("--rounds", type=int, help=f"rounds of which medians are taken (default: {ROUNDS})")
    add("--seconds", type=float, help=f"length of a slice (default: {SECONDS:g})")
    add("--seed", type=int, default=1, help="of order, work and stops (default: %(default)s)")
    add("--json", metavar="FILE", help="write everything, samples included; - for standard output")
    add("--html", metavar="FILE", help="a report in one self-contained page")
    add("--check", action="store_true", help="exit with status 1 if something is not as expected")
    add("--no-progress", action="store_true", help="say nothing until the tables")
    parser.set_defaults(run=lambda given: main(parser, given))


def _steal(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not LEAST_STEAL <= value <= MOST_STEAL:
        raise argparse.ArgumentTypeError(f"{text!r} is not a part between {LEAST_STEAL} and {MOST_STEAL}")
    return value


def _period(text: str) -> int:
    try:
        ns = units.parse_ns(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if not LEAST_PERIOD_NS <= ns <= MOST_PERIOD_NS:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 2ms and 1s")
    return ns


def main(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Run what the arguments ask for; returns the exit status."""
    from pylocks.bench import build
    from pylocks.bench.command import progress
    from pylocks.bench.process import ProcessError

    from . import report, run

    if given.list:
        report.show_list(sys.stdout)
        return PASS
    options = _options(parser, given)
    for option, name in (("json", given.json), ("html", given.html)):
        check_writable(parser, option, name)
    if given.html is not None:
        try:
            importlib.import_module("matplotlib")
        except ImportError:
            parser.error('--html needs matplotlib, which is not installed: pip install "pylocks[cli]"')
    with progress(given.no_progress) as tell:
        try:
            result = run.run(options, tell)
        except (build.CompilerError, ProcessError) as error:
            print(f"pylocks lab: {error}", file=sys.stderr)
            return USAGE
    report.show(result, sys.stderr if given.json == "-" else sys.stdout)
    if given.json == "-":
        json.dump(result, sys.stdout)
        print()
    elif given.json is not None:
        Path(given.json).write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    if given.html is not None:
        from .html import page

        Path(given.html).write_text(page(result), encoding="utf-8")
    return UNEXPECTED if given.check and any(row["met"] is False for row in result["shape"]) else PASS


def _options(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Options:
    """What is asked for; exits with status 2 and a message if that can't be done."""
    from . import quota
    from .run import Options
    from .scenarios import EXPERIMENTS, experiment

    try:
        chosen = tuple(dict.fromkeys(map(experiment, given.scenarios))) or EXPERIMENTS
    except LookupError as error:
        parser.error(str(error.args[0]))
    usable = sorted(os.sched_getaffinity(0))
    cpus = len(usable) if given.cpus is None else given.cpus
    if not 1 <= cpus <= len(usable):
        parser.error(f"--cpus: {cpus} is not between 1 and {len(usable)}, which this process may use")
    rounds = given.rounds if given.rounds is not None else QUICK_ROUNDS if given.quick else ROUNDS
    seconds = given.seconds if given.seconds is not None else QUICK_SECONDS if given.quick else SECONDS
    if not 1 <= rounds <= MOST_ROUNDS:
        parser.error(f"--rounds: {rounds} is not between 1 and {MOST_ROUNDS}")
    if not LEAST_SECONDS <= seconds <= MOST_SECONDS:
        parser.error(f"--seconds: {seconds:g} is not between {LEAST_SECONDS:g} and {MOST_SECONDS:g}")
    names = ", ".join(one.name for one in chosen)
    if given.steal is not None and not any(one.steals for one in chosen):
        parser.error(f"--steal: nothing is stolen in {names}")
    if given.scenarios and any(one.aim == "quota" for one in chosen) and (why := quota.refusal()):
        parser.error(f"no quota can be set here: {why}")
    if cpus == 1 and all(load.factor == 1 for one in chosen for load in one.loads):
        parser.error(f"--cpus 1: {names} would have one vCPU, which contends with nobody")
    return Options(
        chosen, tuple(usable[:cpus]), given.steal, given.period, rounds, seconds, given.seed, given.quick
    )
