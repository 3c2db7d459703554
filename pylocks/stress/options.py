"""What ``pylocks stress`` can be told, and what it refuses."""

from __future__ import annotations

import argparse
import math
import os
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pylocks._core import lib
from pylocks.domain import POLICIES

from . import units
from .subjects import PEER, Subject, subjects

OVERCOMMIT = (1.0, 2.0, 4.0, 8.0)
LOCKS = 1
SECONDS = 2.5  #: a row
CS_NS = OUTSIDE_NS = 2000

#: With --chaos.
CHAOS_PROCESSES, CHAOS_LOCKS, CHAOS_SECONDS = 16, 1000, 60.0
CHAOS_NS = 100_000  #: under a lock, and between
CHAOS_KILLS_PER_S = 8
CHAOS_SLOW_PATHS = ("futex",)
QUICK_SECONDS = 0.5
MAX_PROCESSES = min(4096, int(lib.PLK_MAX_VCPUS) - 8)
MAX_KILLS = 1_000_000
MAX_LOCKS = min(65536, int(lib.PLK_MAX_CELLS))


@dataclass(frozen=True)
class Options:
    """A validated run."""

    slow_paths: tuple[str, ...]
    loads: tuple[tuple[float, int], ...]  #: (overcommit factor, processes), in the order of the rows
    locks: int
    policy: str
    seconds: float | None  #: a row; None: until the acquisitions are made
    acquisitions: int | None
    cs_ns: int
    outside_ns: int
    seed: int
    quick: bool
    chaos: bool
    kills: int  #: at least so many; 0 without chaos
    json: str | None
    html: str | None
    png: str | None
    progress: bool

    def plan(self) -> list[tuple[Subject, float, int]]:
        """The rows in the order in which they run.

        All subjects at one overcommit before the next: what drifts, drifts for all of them.
        """
        known = subjects()
        return [
            (known[name], factor, processes) for factor, processes in self.loads for name in self.slow_paths
        ]

    def command(self) -> str:
        """A command line that runs the same again: same rows, same seed."""
        cpus = len(os.sched_getaffinity(0))
        words = ["pylocks stress", f"--slow-path {','.join(self.slow_paths)}"]
        if self.chaos:
            words += ["--chaos", f"--processes {self.loads[0][1]}", f"--kills {self.kills}"]
        elif all(processes_for(factor, cpus) == processes for factor, processes in self.loads):
            words.append(f"--overcommit {','.join(f'{factor:g}' for factor, _ in self.loads)}")
        else:
            words.append(f"--processes {self.loads[0][1]}")
        words += [f"--locks {self.locks}", f"--policy {self.policy}"]
        if self.seconds is not None:
            words.append(f"--seconds {self.seconds:g}")
        if self.acquisitions is not None:
            words.append(f"--acquisitions {self.acquisitions}")
        words += [f"--cs {self.cs_ns}ns", f"--outside {self.outside_ns}ns", f"--seed {self.seed}"]
        return " ".join(words)

    def to_json(self) -> dict[str, Any]:
        """The options for the results file."""
        return {**asdict(self), "loads": [list(load) for load in self.loads], "command": self.command()}


def processes_for(factor: float, cpus: int) -> int:
    """Processes that overcommit so many CPUs by this factor; at least one."""
    return max(1, round(factor * cpus))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``pylocks stress``."""
    known = subjects()
    kinds = "; ".join(f"{name}: {subject.meaning}" for name, subject in known.items())
    load = parser.add_argument_group("load")
    many = load.add_mutually_exclusive_group()
    many.add_argument(
        "--overcommit",
        type=_list(_factor, "an overcommit factor"),
        metavar="LIST",
        help="processes as multiples of the CPUs we may use (default: 1,2,4,8)",
    )
    many.add_argument(
        "--processes", type=_whole(1, MAX_PROCESSES), metavar="N", help="so many processes instead"
    )
    load.add_argument("--locks", type=_whole(1, MAX_LOCKS), metavar="K", help=f"locks (default: {LOCKS})")
    load.add_argument("--cs", type=_duration, metavar="NS", help="work under the lock (2us)")
    load.add_argument("--outside", type=_duration, metavar="NS", help="work between, varied by half (2us)")
    load.add_argument("--seconds", type=_seconds, metavar="S", help=f"length of a row (default: {SECONDS:g})")
    load.add_argument(
        "--acquisitions",
        type=_whole(1, 2**62),
        metavar="N",
        help="end a row after so many acquisitions of all processes instead; "
        "with --seconds, at whichever comes first",
    )
    load.add_argument("--quick", action="store_true", help=f"all rows, but {QUICK_SECONDS:g} seconds each")
    load.add_argument(
        "--seed", type=_whole(0, 2**64 - 1), metavar="N", help="for lock choices and outside work (random)"
    )
    storm = parser.add_argument_group(
        "chaos",
        "Processes are killed and replaced, stopped and continued, time out and get Ctrl-C while they are "
        "verified, and what the killed leave behind must be recovered and reported. Defaults become "
        f"--processes {CHAOS_PROCESSES} --locks {CHAOS_LOCKS} --seconds {CHAOS_SECONDS:g} "
        f"--cs {CHAOS_NS // 1000}us --outside {CHAOS_NS // 1000}us --slow-path {','.join(CHAOS_SLOW_PATHS)}. "
        "The seed decides what happens to whom, in which order and after which pauses, and which locks each "
        "process asks for, how, and how long it waits. In the midst of what a signal lands is the machine's "
        "timing: the same seed makes the same decisions, not the same instants.",
    )
    storm.add_argument("--chaos", action="store_true", help="do so")
    storm.add_argument(
        "--kills",
        type=_whole(0, MAX_KILLS),
        metavar="N",
        help=f"at least so many; a row lasts until then (default: {CHAOS_KILLS_PER_S} a second)",
    )
    what = parser.add_argument_group("locks")
    what.add_argument(
        "--slow-path",
        type=_list(lambda text: _choice(text, known), "a slow path"),
        metavar="LIST",
        help=f"which to run, of {kinds} (default: all that are not broken and have the policy)",
    )
    what.add_argument(
        "--policy",
        choices=tuple(POLICIES),
        default="fifo",
        help="order of grants: fifo, in strict order; bounded, whoever comes while the lock is free, "
        "and one waiter in order every 200 us (default: %(default)s)",
    )
    out = parser.add_argument_group("results")
    out.add_argument("--json", metavar="FILE", help="everything, raw samples included; - for standard output")
    out.add_argument("--html", metavar="FILE", help="a report in one self-contained page")
    out.add_argument("--png", metavar="FILE", help="the pictures")
    out.add_argument("--no-progress", action="store_true", help="say nothing until the table")


def from_arguments(parser: argparse.ArgumentParser, given: argparse.Namespace) -> Options:
    """Options from parsed arguments; exits with status 2 and a message on what can't be done."""
    if given.chaos:
        _check_chaos(parser, given)
    elif given.kills is not None:
        parser.error("--kills is for --chaos")
    if given.quick and (given.seconds is not None or given.acquisitions is not None):
        parser.error("--quick sets the length of a row: leave out --seconds and --acquisitions")
    for name in given.slow_path or ():
        if not subjects()[name].has(given.policy):
            parser.error(f"--slow-path {name}: there nobody is woken, and --policy {given.policy} needs that")
    cpus = len(os.sched_getaffinity(0))
    number = given.processes or (CHAOS_PROCESSES if given.chaos else None)
    if number is not None:
        loads: tuple[tuple[float, int], ...] = ((number / cpus, number),)
    else:
        factors = given.overcommit or OVERCOMMIT
        loads = tuple((factor, processes_for(factor, cpus)) for factor in factors)
    most = max(processes for _, processes in loads)
    if most > MAX_PROCESSES:
        parser.error(f"--overcommit asks for {most} processes; at most {MAX_PROCESSES} are possible")
    seconds = given.seconds
    if given.quick:
        seconds = QUICK_SECONDS
    elif seconds is None and given.acquisitions is None:
        seconds = CHAOS_SECONDS if given.chaos else SECONDS
    for option in ("json", "html", "png"):
        check_writable(parser, option, getattr(given, option))
    return Options(
        slow_paths=given.slow_path or _default_slow_paths(given.chaos, given.policy),
        loads=loads,
        locks=given.locks or (CHAOS_LOCKS if given.chaos else LOCKS),
        policy=given.policy,
        seconds=seconds,
        acquisitions=given.acquisitions,
        cs_ns=_or(given.cs, CHAOS_NS if given.chaos else CS_NS),
        outside_ns=_or(given.outside, CHAOS_NS if given.chaos else OUTSIDE_NS),
        seed=secrets.randbits(32) if given.seed is None else given.seed,
        quick=given.quick,
        chaos=given.chaos,
        kills=_or(given.kills, math.ceil(CHAOS_KILLS_PER_S * (seconds or 0))) if given.chaos else 0,
        json=given.json,
        html=given.html,
        png=given.png,
        progress=not given.no_progress,
    )


def _or(given: int | None, default: int) -> int:
    return default if given is None else given


def _default_slow_paths(chaos: bool, policy: str) -> tuple[str, ...]:
    if chaos:
        return CHAOS_SLOW_PATHS
    return tuple(name for name, subject in subjects().items() if subject.sound and subject.has(policy))


def _check_chaos(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """Refuse what has no meaning while processes are killed."""
    for option in ("overcommit", "acquisitions", "quick", "html", "png"):
        if getattr(given, option):
            instead = {"overcommit": "use --processes", "html": "use --json", "png": "use --json"}
            parser.error(f"--{option} has no meaning with --chaos; {instead.get(option, 'use --seconds')}")
    if PEER in (given.slow_path or ()):
        parser.error(
            f"--slow-path {PEER}: multiprocessing.Lock stays locked for ever when its holder is killed"
        )


def check_writable(parser: argparse.ArgumentParser, option: str, name: str | None) -> None:
    """Say now what would otherwise be found out after minutes of work."""
    if name is None or (option == "json" and name == "-"):
        return
    path = Path(name)
    if path.is_dir():
        parser.error(f"--{option}: {name} is a directory; name a file")
    if not path.parent.is_dir():
        parser.error(f"--{option}: there is no directory {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        parser.error(f"--{option}: no permission to write {name}")


def _list(item: Callable[[str], Any], what: str) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        parts = [part.strip() for part in text.split(",")]
        if not all(parts):
            raise argparse.ArgumentTypeError(f"{text!r}: {what} is missing between commas")
        # A row twice would be two points on one line of the picture.
        return tuple(dict.fromkeys(item(part) for part in parts))

    return parse


def _choice(text: str, known: dict[str, Subject]) -> str:
    if text not in known:
        raise argparse.ArgumentTypeError(
            f"there is no slow path {text!r}; choose from {', '.join(known)} ({PEER}: multiprocessing.Lock)"
        )
    return text


def _factor(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= MAX_PROCESSES:
        raise argparse.ArgumentTypeError(f"{text!r} is not a factor between 0 and {MAX_PROCESSES}")
    return value


def _whole(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text.replace("_", ""))
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{value} is not between {least} and {most}")
        return value

    return parse


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = 0.0
    if not 0 < value <= 86_400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds between 0 and 86400")
    return value


def _duration(text: str) -> int:
    try:
        ns = units.parse_ns(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if ns > 10_000_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is more than 10 s")
    return ns
