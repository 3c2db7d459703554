"""Queues that are formed, all asleep, and then let through: what a handover costs among so many."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from .arena import MS, Arena, Crew, Slice
from .csubjects import CLock, check, library
from .sample import Busy, Sample, percentile

__all__ = ["play"]

SETTLE_MS = 5
LEAST, MOST = 200, 20_000
"""Handovers in a slice."""


def play(lock: CLock, plan: Slice, ticks_per_ns: float, counted: Callable[[], Mapping[str, int]]) -> Sample:
    """Form and drain queues for so many seconds, at least until LEAST handovers have been seen.  OSError."""
    lib, arena, busy = library(), Arena(plan), Busy()
    grown: dict[str, int] = {}
    ticks = switches = preempted = cpu_ns = drained = 0
    with Crew(
        plan, arena, lambda number: lib.bench_work(lock.raw, arena.control, number, lib.BENCH_QUEUE)
    ) as crew:
        until = time.monotonic() + plan.seconds
        while drained < MOST and (drained < LEAST or time.monotonic() < until):
            # Longer where there are many: they must all have gone to sleep.
            check(lib.bench_form(lock.raw, arena.control, (SETTLE_MS + plan.processes // 20) * MS), lock.name)
            before = counted()
            ticks += check(lib.bench_drain(lock.raw, arena.control), lock.name)
            for name, value in counted().items():
                grown[name] = grown.get(name, 0) + value - before[name]
            drained += plan.processes
            for worker in arena.workers:
                cpu_ns += int(worker.cpu_ns)
                switches += _grown(worker.switches)
                preempted += _grown(worker.preempted)
        killed = check(lib.bench_disperse(arena.control, plan.grace_ns), lock.name)
    assert len(crew.used) == plan.processes
    arena.check()
    seconds = ticks / ticks_per_ns / 1e9
    waits = arena.waits()
    acquired = sum(int(worker.acquisitions) for worker in arena.workers)
    return Sample(
        seconds=seconds,
        acquisitions=drained,
        rate=drained / seconds,
        jain=1.0 if acquired == drained else None,  # everybody once in every queue
        p50=percentile(waits, 0.5, ticks_per_ns),
        p99=percentile(waits, 0.99, ticks_per_ns),
        p999=percentile(waits, 0.999, ticks_per_ns),
        max=max(worker.longest for worker in arena.workers) / ticks_per_ns,
        cpu=cpu_ns / 1e9 / seconds,
        switches=(switches + preempted) / drained,
        preempted=preempted / drained,
        least=min(int(worker.acquisitions) for worker in arena.workers),
        killed=killed,
        violations=sum(int(worker.violations) for worker in arena.workers)
        + int(arena.control.counter != acquired),
        others=busy.others(),
        events={name: value / drained for name, value in grown.items()},
    )


def _grown(noticed: Any) -> int:
    """From before it queued until it was through."""
    lib = library()
    return int(noticed[lib.BENCH_OVER] - noticed[lib.BENCH_MEASURE])
