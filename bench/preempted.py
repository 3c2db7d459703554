"""What it costs and what it brings to know whether a lock's holder runs: python -m bench.preempted.

Compares the choices of the op vcpu_preempted.  The choice `bpf` needs a pylocks.PreemptionMonitor, which
this program runs while that choice has its turn, and so must be run as root.  Three tables:

- a context switch with and without the monitor: two processes on one CPU pass a byte to and fro;
- one wait behind a holder that does not run (it is stopped): the CPU time that the waiter uses;
- loads in which processes outnumber CPUs, run by `pylocks stress`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pylocks
from pylocks.bench.arena import child
from pylocks.ops import choices

__all__ = ["Cell", "Load", "main"]

ROOT = Path(__file__).resolve().parent.parent
CHOICES = tuple(choice.name for choice in choices("vcpu_preempted"))
BASE = "off"
SWITCHES = 5_000
"""Round trips in a batch."""
WAITS = 200
"""Attempts in a batch behind a holder that does not run."""
TIMEOUT_S = 0.0003
"""Of one attempt: longer than a waiter spins."""


@dataclass(frozen=True)
class Load:
    """Processes that fight for locks, and some that only take CPU time from them."""

    name: str
    processes: int
    locks: int
    cs: str
    outside: str
    hogs: int = 0


LOADS = (
    Load("8 on one lock, S", 8, 1, "200", "1000"),
    Load("8 on one lock, M", 8, 1, "2us", "2us"),
    Load("8 on one lock, L", 8, 1, "20us", "2us"),
    Load("8 on 4 locks, M", 8, 4, "2us", "2us"),
    Load("8 on 4 locks, L", 8, 4, "20us", "2us"),
    Load("2 and 2 hogs, M", 2, 1, "2us", "2us", hogs=2),
    Load("2 and 2 hogs, L", 2, 1, "20us", "2us", hogs=2),
)
SLOW_PATHS = ("futex", "yield")


@dataclass(frozen=True)
class Cell:
    """One load under one slow path and choice; a sample a round in each list."""

    load: str
    slow_path: str
    choice: str
    per_s: list[float]
    max_wait_ms: list[float]
    cpus: list[float]
    skipped: list[float]
    """Spins not begun, for a thousand acquisitions."""


def spread(samples: list[float], digits: int = 2) -> str:
    """Median and quartiles."""
    if len(samples) < 2:
        return f"{samples[0]:.{digits}f}"
    low, _, high = quantiles(samples, n=4)
    return f"{median(samples):.{digits}f} [{low:.{digits}f} {high:.{digits}f}]"


@contextmanager
def monitored(choice: str) -> Iterator[None]:
    """The monitor runs if the choice is `bpf`, and only then."""
    if choice != "bpf":
        yield
        return
    with pylocks.PreemptionMonitor():
        yield


@contextmanager
def _children(*works: Callable[[], None]) -> Iterator[list[int]]:
    """Such processes, killed at the end of the block."""
    pids: list[int] = []
    try:
        pids.extend(map(child, works))
        yield pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


# ---------------------------------------------------------------- a context switch


def switches(rounds: int) -> dict[str, list[float]]:
    """ns a context switch, without and with the monitor."""
    there, back = os.pipe(), os.pipe()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})

    def echo() -> None:
        while os.read(there[0], 1):
            os.write(back[1], b"x")

    def batch() -> float:
        began = time.perf_counter_ns()
        for _ in range(SWITCHES):
            os.write(there[1], b"x")
            os.read(back[0], 1)
        return (time.perf_counter_ns() - began) / SWITCHES / 2

    found: dict[str, list[float]] = {"off": [], "bpf": []}
    try:
        with _children(echo):
            for _ in range(rounds):
                for choice in random.sample(list(found), len(found)):
                    with monitored(choice):
                        batch()
                        found[choice].append(min(batch() for _ in range(3)))
    finally:
        os.sched_setaffinity(0, before)
        for end in (*there, *back):
            os.close(end)
    return found


# -------------------------------------------------- a wait behind who does not run


def stopped_holder() -> float:
    """CPU time, us, of one attempt behind a stopped holder, by this process's choice."""
    readable, writable = os.pipe()
    with pylocks.Domain() as domain:
        lock = pylocks.TicketLock(domain=domain)

        def hold() -> None:
            lock.acquire()
            os.write(writable, b"x")
            signal.pause()

        with _children(hold) as (holder,):
            os.read(readable, 1)
            os.kill(holder, signal.SIGSTOP)
            os.waitpid(holder, os.WUNTRACED)
            for _ in range(2):  # the first is for whoever has yet to find the monitor
                began = time.thread_time_ns()
                for _ in range(WAITS):
                    lock.acquire(timeout=TIMEOUT_S)
                took = time.thread_time_ns() - began
            os.kill(holder, signal.SIGKILL)
    return took / WAITS / 1e3


def _environment(choice: str, slow_path: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYLOCKS_")}
    return {**kept, "PYLOCKS_OPS": f"vcpu_preempted={choice},lock_spinning={slow_path}"}


def waits(rounds: int) -> dict[str, list[float]]:
    """CPU time, us, of a wait behind a stopped holder, by choice."""
    found: dict[str, list[float]] = {choice: [] for choice in CHOICES}
    for _ in range(rounds):
        for choice in random.sample(CHOICES, len(CHOICES)):
            with monitored(choice):
                done = subprocess.run(
                    [sys.executable, "-m", "bench.preempted", "--here"],
                    cwd=ROOT,
                    env=_environment(choice, "futex"),
                    stdout=subprocess.PIPE,
                    check=True,
                )
            found[choice].append(float(done.stdout))
    return found


# --------------------------------------------------------------------------- loads


def _hog() -> None:
    while True:
        pass


def _row(load: Load, slow_path: str, choice: str, seconds: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "pylocks", "stress", "--json", "-", "--no-progress"]
    command += ["--processes", str(load.processes), "--locks", str(load.locks), "--seconds", str(seconds)]
    command += ["--cs", load.cs, "--outside", load.outside, "--slow-path", slow_path]
    with monitored(choice), _children(*[_hog] * load.hogs):
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=_environment(choice, slow_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,  # its table
            check=True,
        )
    (row,) = json.loads(done.stdout)["rows"]
    return dict(row)


def _measure(load: Load, slow_path: str, rounds: int, seconds: float) -> list[Cell]:
    """Each choice in turn, in another order every round."""
    cells = {choice: Cell(load.name, slow_path, choice, [], [], [], []) for choice in CHOICES}
    for _ in range(rounds):
        for choice in random.sample(CHOICES, len(CHOICES)):
            row, cell = _row(load, slow_path, choice, seconds), cells[choice]
            cell.per_s.append(row["acquisitions_per_s"])
            cell.max_wait_ms.append(row["wait_ns"]["max"] / 1e6)
            cell.cpus.append(row["cpu_seconds"] / row["seconds"])
            cell.skipped.append(1000 * row["events"]["preempted"] / row["acquisitions"])
    return list(cells.values())


HEADING = (
    f"{'load':<18}{'slow path':>10}{'choice':>10}{'k/s':>8}  {'ratio to ' + BASE:<21}"
    f"{'CPUs':>5}{'max wait ms':>13}{'skipped spins ‰':>17}"
)


def _line(cell: Cell, base: Cell) -> str:
    ratios = spread([mine / theirs for mine, theirs in zip(cell.per_s, base.per_s, strict=True)])
    return (
        f"{cell.load:<18}{cell.slow_path:>10}{cell.choice:>10}{median(cell.per_s) / 1e3:>8.1f}  {ratios:<21}"
        f"{median(cell.cpus):>5.2f}{median(cell.max_wait_ms):>13.1f}{median(cell.skipped):>17.2f}"
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.preempted", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--rounds", type=int, default=15, help="samples for each figure (15)")
    parser.add_argument("--seconds", type=float, default=0.5, help="length of a load's run (0.5)")
    parser.add_argument("--loads", nargs="+", default=None, metavar="TEXT", help="only those that contain it")
    parser.add_argument("--json", type=Path, help="write all samples into this file")
    parser.add_argument("--here", action="store_true", help="a stopped holder, in this process; prints us")
    options = parser.parse_args()
    if options.here:
        print(stopped_holder())
        return
    try:
        switching = switches(options.rounds)
    except pylocks.MonitorError as error:
        sys.exit(f"bench.preempted: {error}")
    more = [with_it - without for without, with_it in zip(switching["off"], switching["bpf"], strict=True)]
    print(f"a context switch: {spread(switching['off'], 0)} ns, with the monitor {spread(more, 0)} ns more")
    waiting = waits(options.rounds)
    for choice, samples in waiting.items():
        print(f"CPU time of a wait behind a stopped holder, {choice}: {spread(samples, 1)} us")
    print(HEADING)
    cells: list[Cell] = []
    for load in LOADS:
        if options.loads is not None and not any(text in load.name for text in options.loads):
            continue
        for slow_path in SLOW_PATHS:
            found = _measure(load, slow_path, options.rounds, options.seconds)
            for cell in found:
                print(_line(cell, found[0]), flush=True)
            cells += found
    if options.json is not None:
        samples = {"switch_ns": switching, "wait_us": waiting, "loads": [asdict(cell) for cell in cells]}
        options.json.write_text(json.dumps(samples, indent=1))


if __name__ == "__main__":
    main()
