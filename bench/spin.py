"""What the spin policy of a hypervisor service gains and costs: python -m bench.service --spin.

Processes fight over one lock while this one, as the domain's service, has them spin as they see fit and
not at all, in turns of a fraction of a second and in random order; so both see the same machine.  Then it
looks on as a service with `--spin auto` does, and tells what that decides.  Loads: as many processes as
CPUs, more, and some with hogs, which only take CPU time.
"""

from __future__ import annotations

import json
import mmap
import os
import random
import signal
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pylocks
from pylocks._core import ffi, lib
from pylocks.bench.arena import child
from pylocks.bench.csubjects import library
from pylocks.policy import Accounts, Auto
from pylocks.service import live_segment

__all__ = ["run"]

OPS = "lock_event=counters"
WORD = 8
SLICE_S = 0.3
AUTO_LOOKS, AUTO_LOOK_S = 8, 0.5
FOREVER = (1 << 64) - 1
HEADING = (
    f"{'load':<22}{'policy':<9}{'k/s':>8}  {'off/own: throughput':<21}{'CPU an acquisition':<20}"
    f"{'queued':>7}{'steal':>7}  auto says"
)


@dataclass(frozen=True)
class Load:
    """Processes for each CPU, what they do, and processes that only take CPU time."""

    name: str
    each: float
    inside_ns: int
    outside_ns: int
    hogs: float = 0.0


LOADS = (
    Load("as many as CPUs, S", 1, 200, 1_000),
    Load("as many as CPUs, M", 1, 2_000, 2_000),
    Load("as many as CPUs, L", 1, 20_000, 2_000),
    Load("4 times as many, S", 4, 200, 1_000),
    Load("4 times as many, M", 4, 2_000, 2_000),
    Load("4 times as many, L", 4, 20_000, 2_000),
    Load("as many, and hogs, M", 1, 2_000, 2_000, 1),
    Load("as many, and hogs, L", 1, 20_000, 2_000, 1),
)


def _hog() -> None:
    while True:
        lib.plk_probe_work(1 << 20)


def _cpu_ns(pids: list[int]) -> int:
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids)


@contextmanager
def _fighting(load: Load, lock: pylocks.TicketLock) -> Iterator[tuple[list[int], memoryview]]:
    """The processes, and how often each has had the lock."""
    cpus = len(os.sched_getaffinity(0))
    library()  # not by each of the processes
    turns = (1 << 20) / lib.plk_probe_time_work(1 << 20)
    inside, outside = (max(1, round(ns * turns)) for ns in (load.inside_ns, load.outside_ns))
    number = max(2, round(load.each * cpus))
    counts = memoryview(mmap.mmap(-1, number * WORD)).cast("Q")

    def work(me: int) -> None:
        warnings.simplefilter("ignore", pylocks.OwnerDiedWarning)  # of the others, which end one by one
        busy, acquire, release = lib.plk_probe_work, lock.acquire, lock.release
        while True:
            acquire()
            busy(inside)
            release()
            counts[me] += 1
            busy(outside)

    pids = [child(lambda me=me: work(me)) for me in range(number)]
    hogs = [child(_hog) for _ in range(round(load.hogs * cpus))]
    try:
        yield pids, counts
    finally:
        for pid in pids + hogs:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


@dataclass(frozen=True)
class Cell:
    """One load under one policy of the lock; a sample a round in each list."""

    load: str
    policy: str
    own_per_s: list[float]
    throughput: list[float]
    cpu: list[float]
    queued: float
    steal: float
    auto: str


def measure(load: Load, policy: str, rounds: int) -> Cell:
    """Both ways in each round, in random order."""
    with pylocks.Domain() as domain:
        segment, lock = live_segment(domain), pylocks.TicketLock(domain=domain, policy=policy)
        if lib.plk_service_begin(segment) != 0:
            raise OSError("this process can't be the domain's service")
        own: list[float] = []
        throughput: list[float] = []
        cpu: list[float] = []
        with _fighting(load, lock) as (pids, counts):
            time.sleep(4 * SLICE_S)
            for _ in range(rounds):
                seen = {}
                for spin in random.sample((lib.PLK_SPIN_OWN, 0), 2):
                    lib.plk_policy_publish(segment, spin, lib.PLK_TRUST_OWN, FOREVER)
                    time.sleep(SLICE_S / 4)
                    before = (sum(counts), _cpu_ns(pids), time.monotonic())
                    time.sleep(SLICE_S)
                    after = (sum(counts), _cpu_ns(pids), time.monotonic())
                    got, used, took = (b - a for a, b in zip(before, after, strict=True))
                    seen[spin] = (got / took, used / max(1, got))
                own.append(seen[lib.PLK_SPIN_OWN][0])
                throughput.append(seen[0][0] / max(1.0, own[-1]))
                cpu.append(seen[0][1] / max(1, seen[lib.PLK_SPIN_OWN][1]))
            decided = _auto(domain, segment)
        lib.plk_service_end(segment, ffi.new("struct plk_service *"))
    return Cell(load.name, policy, own, throughput, cpu, *decided)


def _auto(domain: pylocks.Domain, segment: Any) -> tuple[float, float, str]:
    """What a service with --spin auto would see and say: (queued, steal, words)."""
    accounts, auto = Accounts(domain), Auto()
    said, first = ["own"], None
    accounts.look()
    for _ in range(AUTO_LOOKS):
        lib.plk_policy_publish(segment, 0 if auto.off else lib.PLK_SPIN_OWN, lib.PLK_TRUST_OWN, FOREVER)
        time.sleep(AUTO_LOOK_S)
        load = accounts.look()
        if load is None:
            continue
        first = first or load
        auto.decide(load)
        said.append("off" if auto.off else "own")
    changes = sum(a != b for a, b in pairwise(said))
    words = said[-1] + (f" ({changes} changes)" if changes > 1 else "")
    if first is None:
        return 0.0, 0.0, words
    return first.queued, first.steal, words


def _spread(samples: list[float]) -> str:
    low, _, high = quantiles(samples, n=4) if len(samples) > 1 else samples * 3
    return f"{median(samples):.2f} [{low:.2f} {high:.2f}]"


def line(cell: Cell) -> str:
    """Below HEADING."""
    return (
        f"{cell.load:<22}{cell.policy:<9}{median(cell.own_per_s) / 1e3:>8.1f}  {_spread(cell.throughput):<21}"
        f"{_spread(cell.cpu):<20}{cell.queued:>7.2f}{cell.steal:>7.0%}  {cell.auto}"
    )


def run(rounds: int, as_json: bool) -> int:
    """All loads under both policies of a lock, in an interpreter that counts; 0."""
    if os.environ.get("PYLOCKS_OPS") != OPS:  # what `auto` goes by is counted only if that is asked for
        os.environ["PYLOCKS_OPS"] = OPS
        more = ["--json"] if as_json else []
        again = [sys.executable, "-m", "bench.service", "--spin", f"--rounds={rounds}", *more]
        os.execv(sys.executable, again)
    cells = []
    if not as_json:
        print(HEADING)
    for load in LOADS:
        for policy in ("fifo", "bounded"):
            cells.append(measure(load, policy, rounds))
            if not as_json:
                print(line(cells[-1]), flush=True)
    if as_json:
        print(json.dumps([asdict(cell) for cell in cells], indent=1))
    return 0
