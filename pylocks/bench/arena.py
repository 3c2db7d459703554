"""The memory that the processes of one slice share, and those processes.

The memory is an anonymous mapping (csubjects/harness.cdef: struct bench_control, and a page for each
worker), so nothing that a worker has written is lost when it is killed.
"""

from __future__ import annotations

import gc
import mmap
import os
import signal
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from .csubjects import check, ffi, library
from .sample import Sample, jain, percentile

__all__ = ["MS", "Arena", "Crew", "Slice", "child", "figures", "lead"]

MS = 1_000_000
GRACE_MS, COLLAPSE_GRACE_MS = 20_000, 50


@dataclass(frozen=True)
class Slice:
    """What the processes do."""

    game: str
    processes: int
    inside_ns: float
    """Work in the critical section."""
    outside_ns: float
    """And between, half of it more or less."""
    turns_per_ns: float
    """How much work in C is a nanosecond's, and in Python."""
    loops_per_ns: float
    seconds: float
    warm_ms: int = 100
    seed: int = 1
    pin: bool = False
    """Each process to a CPU of its own, as far as they go."""
    collapses: bool = False
    """Who is still in the queue 50 ms after the end is killed; else, after 20 s."""

    @property
    def grace_ns(self) -> int:
        """How long it may take them to leave."""
        return (COLLAPSE_GRACE_MS if self.collapses else GRACE_MS) * MS


class Arena:
    """The mapping."""

    def __init__(self, plan: Slice, *, python: bool = False) -> None:
        lib = library()
        self.map = mmap.mmap(-1, lib.bench_mapping_size(plan.processes))
        self._view = ffi.from_buffer(self.map)
        self.control: Any = ffi.cast("struct bench_control *", self._view)
        self.control.workers = plan.processes
        self.control.cs_turns = round(plan.inside_ns * plan.turns_per_ns)
        self.control.outside_turns = round(plan.outside_ns * plan.turns_per_ns)
        self.control.seed = plan.seed
        self.control.in_ns = python
        self.control.baton = 1
        self.workers = [lib.bench_worker_at(self.control, number) for number in range(plan.processes)]

    def waits(self) -> list[int]:
        """How many waits fell into each bucket."""
        found = ffi.new("uint64_t[]", library().BENCH_BUCKETS)
        library().bench_merge(self.control, found)
        return list(found)

    def check(self) -> None:
        """OSError if a worker could not lock."""
        for worker in self.workers:
            check(worker.error, "a worker")


class Crew:
    """Worker processes; none is left when the `with` block ends."""

    def __init__(self, plan: Slice, arena: Arena, work: Callable[[int], Any]) -> None:
        """Fork them: each calls work(number), in a process that must have a single thread."""
        self._arena = arena
        self._pids: list[int] = []
        self.used: list[Any] = []
        """resource usage of each, after the end"""
        gc.freeze()  # a collection in a worker would only copy the pages it looks at
        try:
            for number in range(plan.processes):
                self._pids.append(_fork(plan, arena, number, work))
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = self.end()
        if failed and value is None:
            raise OSError(f"{failed} workers failed; what they said stands above")

    def end(self) -> int:
        """Kill those who have not left, and reap all; how many ended with an error."""
        if self._arena.control.gone < self._arena.control.workers:
            for pid in self._pids:
                os.kill(pid, signal.SIGKILL)  # not yet waited for: the pid is still its own
        failed = 0
        while self._pids:
            _, status, used = os.wait4(self._pids.pop(0), 0)
            failed += os.waitstatus_to_exitcode(status) not in (0, -signal.SIGKILL)
            self.used.append(used)
        return failed


def child(work: Callable[[], None], failed: Callable[[], None] = lambda: None) -> int:
    """Fork a process that runs `work` and ends, with this one at the latest; its pid.

    If `work` raises, it says so first and calls `failed` then: whoever hears of that may kill it.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            if library().bench_die_with(parent) == 0:
                work()
                status = 0
        except BaseException:
            traceback.print_exc()
            failed()
        finally:
            os._exit(status)
    return pid


def _fork(plan: Slice, arena: Arena, number: int, work: Callable[[int], Any]) -> int:
    def play() -> None:
        if plan.pin:
            usable = sorted(os.sched_getaffinity(0))
            os.sched_setaffinity(0, {usable[number % len(usable)]})
        work(number)

    return child(play, lambda: library().bench_leave(arena.control))


def lead(arena: Arena, plan: Slice) -> int:
    """Let the workers fight until the window is over; how many have not left then.  OSError."""
    return check(
        library().bench_conduct(arena.control, plan.warm_ms * MS, round(plan.seconds * 1e9), plan.grace_ns),
        "gathering the workers",
    )


def figures(arena: Arena, used: Sequence[Any], killed: int, ticks_per_ns: float) -> Sample:
    """The sample of a slice that was led."""
    counts = [int(worker.counted) for worker in arena.workers]
    total = sum(counts)
    switches = preempted = violations = 0
    for worker, usage in zip(arena.workers, used, strict=True):
        involuntary = _between(worker.preempted, usage.ru_nivcsw)
        switches += _between(worker.switches, usage.ru_nvcsw) + involuntary
        preempted += involuntary
        violations += int(worker.violations)
    if killed == 0:
        violations += arena.control.counter != sum(worker.acquisitions for worker in arena.workers)
    waits = arena.waits()
    seconds = arena.control.window_ns / 1e9
    return Sample(
        seconds=seconds,
        acquisitions=total,
        rate=total / seconds,
        jain=jain(counts),
        p50=percentile(waits, 0.5, ticks_per_ns),
        p99=percentile(waits, 0.99, ticks_per_ns),
        p999=percentile(waits, 0.999, ticks_per_ns),
        max=max(max(worker.longest, worker.pending) for worker in arena.workers) / ticks_per_ns,
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
