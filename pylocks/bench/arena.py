"""One slice: processes contend for a lock for a while, and what each of them got.

The memory they share is an anonymous mapping (csubjects/harness.cdef: struct bench_control, and a page
for each worker), so nothing that a worker has written is lost when it is killed.
"""

from __future__ import annotations

import gc
import mmap
import os
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from .csubjects import check, ffi, library

__all__ = ["Sample", "Slice", "run"]

MS = 1_000_000
GRACE_MS, COLLAPSE_GRACE_MS = 20_000, 50


@dataclass(frozen=True)
class Slice:
    """What the processes do."""

    processes: int
    cs_turns: int
    """Of work in the critical section, and between."""
    outside_turns: int
    seconds: float
    warm_ms: int = 100
    seed: int = 1
    pin: bool = False
    """Each process to a CPU of its own, as far as they go."""
    collapses: bool = False
    """Who is still in the queue 50 ms after the end is killed; else, after 20 s."""


@dataclass(frozen=True)
class Sample:
    """What came out.  Waits in ns; those still under way at the end count for the longest."""

    seconds: float
    acquisitions: int
    rate: float
    """Acquisitions a second."""
    jain: float | None
    """1: all got the same; 1/n: one got all; None: nobody got anything."""
    p50: float | None
    p99: float | None
    p999: float | None
    max: float | None
    cpu: float
    """CPU seconds of all processes a second."""
    switches: float | None
    """Context switches for each acquisition."""
    preempted: float | None
    """Those among them that were not the process's own wish."""
    least: int
    """Acquisitions of the process that got least."""
    killed: int
    """Processes that could not be stopped but by killing them."""
    violations: int
    """Somebody else was seen inside, or the counter is wrong."""


class Arena:
    """The mapping of one slice."""

    def __init__(self, plan: Slice) -> None:
        lib = library()
        self._map = mmap.mmap(-1, lib.bench_mapping_size(plan.processes))
        self._view = ffi.from_buffer(self._map)
        self.control: Any = ffi.cast("struct bench_control *", self._view)
        self.control.workers = plan.processes
        self.control.cs_turns = plan.cs_turns
        self.control.outside_turns = plan.outside_turns
        self.control.seed = plan.seed
        self.workers = [lib.bench_worker_at(self.control, number) for number in range(plan.processes)]

    def waits(self) -> list[int]:
        """How many waits fell into each bucket."""
        found = ffi.new("uint64_t[]", library().BENCH_BUCKETS)
        library().bench_merge(self.control, found)
        return list(found)


def run(plan: Slice, work: Callable[[Any, int], Any], ticks_per_ns: float) -> Sample:
    """Fork the workers, each of which calls work(control, number), and lead them.

    OSError if there is no memory or a worker could not lock.
    """
    arena = Arena(plan)
    lib = library()
    pids: dict[int, int] = {}
    used: dict[int, Any] = {}
    gc.freeze()  # a collection in a worker would only copy the pages it looks at
    try:
        for number in range(plan.processes):
            pids[number] = _fork(plan, number, lambda number=number: work(arena.control, number))
        grace_ms = COLLAPSE_GRACE_MS if plan.collapses else GRACE_MS
        killed = check(
            lib.bench_conduct(
                arena.control, plan.warm_ms * MS, round(plan.seconds * 1e9), grace_ms * MS
            ),
            "gathering the workers",
        )
    finally:
        for number, pid in pids.items():
            if arena.control.gone < plan.processes:
                os.kill(pid, signal.SIGKILL)  # not yet waited for: the pid is still its own
        for number, pid in pids.items():
            used[number] = os.wait4(pid, 0)[2]
    for worker in arena.workers:
        check(worker.error, "a worker")
    return _sample(arena, plan, killed, used, ticks_per_ns)


def _fork(plan: Slice, number: int, work: Callable[[], Any]) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if library().bench_die_with(parent) == 0:
                if plan.pin:
                    usable = sorted(os.sched_getaffinity(0))
                    os.sched_setaffinity(0, {usable[number % len(usable)]})
                work()
                status = 0
        finally:
            os._exit(status)
    return pid


def _sample(
    arena: Arena, plan: Slice, killed: int, used: dict[int, Any], ticks_per_ns: float
) -> Sample:
    counts = [int(worker.counted) for worker in arena.workers]
    total = sum(counts)
    switches = preempted = violations = 0
    for number, worker in enumerate(arena.workers):
        voluntary = _between(worker.switches, used[number].ru_nvcsw)
        involuntary = _between(worker.preempted, used[number].ru_nivcsw)
        switches += voluntary + involuntary
        preempted += involuntary
        violations += int(worker.violations)
    if killed == 0:
        violations += arena.control.counter != sum(worker.acquisitions for worker in arena.workers)
    waits = arena.waits()
    longest = max(max(worker.longest, worker.pending) for worker in arena.workers) / ticks_per_ns
    seconds = arena.control.window_ns / 1e9
    squares = sum(count * count for count in counts)
    return Sample(
        seconds=seconds,
        acquisitions=total,
        rate=total / seconds,
        jain=total * total / (len(counts) * squares) if total else None,
        **{
            name: percentile(waits, share, ticks_per_ns)
            for name, share in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999))
        },
        max=longest,
        cpu=sum(worker.cpu_ns for worker in arena.workers) / 1e9 / seconds,
        switches=switches / total if total else None,
        preempted=preempted / total if total else None,
        least=min(counts),
        killed=killed,
        violations=violations,
    )


def _between(noticed: Any, at_the_end: int) -> int:
    """Context switches from the beginning of the window to its end, as far as the worker noticed them."""
    lib = library()
    begin = noticed[lib.BENCH_MEASURE] or noticed[lib.BENCH_WARM]
    return int((noticed[lib.BENCH_OVER] or at_the_end) - begin)


def percentile(waits: list[int], share: float, ticks_per_ns: float) -> float | None:
    """The wait, ns, that so many waits do not exceed; None if there was none."""
    wanted = share * sum(waits)
    seen = 0
    for bucket, count in enumerate(waits):
        seen += count
        if count and seen >= wanted:
            return float(library().bench_bucket_floor(bucket)) / ticks_per_ns
    return None


def as_json(sample: Sample) -> dict[str, Any]:
    """For the line to whoever asked."""
    return asdict(sample)
