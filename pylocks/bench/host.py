"""The process of one C contender: opens its lock for each slice and forks the workers.

The first line it reads names the subject and the policy; it answers with what it turned out to be, or
why that can't be had here.  Every further line is a slice, which it answers with a sample.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from typing import Any

import pylocks

from . import deaths, queues
from .arena import Arena, Crew, Slice, figures, lead
from .csubjects import CLock, CSubject, library, subject
from .process import answer
from .sample import Busy, Sample

__all__ = ["facts", "main", "opened", "play"]

SPARE_VCPUS = 8


@contextmanager
def opened(
    found: CSubject, policy: str, processes: int, served: bool = False
) -> Iterator[tuple[CLock, pylocks.TicketLock]]:
    """A free lock, in a domain of its own: the dead of one slice are nobody's business in the next."""
    with (
        pylocks.Domain(vcpus=processes + SPARE_VCPUS, locks=16) as domain,
        pylocks.Hypervisor(domain) if served else nullcontext(),
    ):
        cell = pylocks.TicketLock(domain=domain, policy=policy)
        with found.open(cell) as lock:
            yield lock, cell


def facts(found: CSubject, policy: str, served: bool = False) -> dict[str, Any]:
    """What this process is, or {"unavailable": why}."""
    try:
        with opened(found, policy, 1, served) as (lock, cell):
            lock.pairs(1)
            told = {"protocol": cell.domain.protocol, "slow_path": cell.domain.slow_path}
    except (ValueError, OSError, AttributeError, pylocks.PylocksError) as error:  # an old one has no service
        return {"unavailable": str(error)}
    sites = [op for op in pylocks.ops() if op.module in ("pylocks._lock", "bench.csubjects")]
    return {
        **(told if found.name.startswith("pylocks") else {}),
        "pylocks": pylocks.__version__,
        "sites": len(sites),
        "patched": sum(site.kind in ("nop", "inline", "call") for site in sites),
    }


def play(found: CSubject, policy: str, plan: Slice, ticks_per_ns: float, served: bool = False) -> Sample:
    """One slice; OSError."""
    lib = library()
    with opened(found, policy, plan.processes, served) as (lock, cell):

        def counted() -> Mapping[str, int]:
            return asdict(cell.domain.stats())

        if plan.game == "death":
            return deaths.play(lock, lambda lock: lock, plan)
        if plan.game == "queue":
            return queues.play(lock, plan, ticks_per_ns, counted)
        game = {"contend": lib.BENCH_CONTEND, "relay": lib.BENCH_RELAY}[plan.game]
        arena, busy = Arena(plan), Busy()
        with Crew(plan, arena, lambda n: lib.bench_work(lock.raw, arena.control, n, game)) as crew:
            killed = lead(arena, plan)
        arena.check()
        sample = figures(arena, crew.used, killed, ticks_per_ns)
        # Counted from the first acquisition on, not from when the window opened.
        total = sum(int(worker.acquisitions) for worker in arena.workers)
        events = {name: value / total for name, value in counted().items() if total}
    return replace(sample, others=busy.others(), events=events if any(events.values()) else {})


def main() -> None:
    """Serve standard input until it ends."""
    asked = json.loads(sys.stdin.readline())
    found, policy, served = subject(asked["subject"]), asked["policy"], asked.get("served", False)
    answer(facts(found, policy, served))
    ticks_per_ns = library().bench_ticks_per_ns()
    for line in sys.stdin:
        answer(asdict(play(found, policy, Slice(**json.loads(line)), ticks_per_ns, served)))
