"""The process of one contender: opens its lock for each slice and forks the workers.

The first line it reads names the subject and the policy; it answers with what it turned out to be, or
why that can't be had here.  Every further line is a slice, which it answers with a sample.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pylocks

from . import arena
from .csubjects import CLock, CSubject, library, subject
from .process import answer

SPARE_VCPUS = 8


@contextmanager
def _open(found: CSubject, policy: str, processes: int) -> Iterator[CLock]:
    """A free lock, in a domain of its own: the dead of one slice are nobody's business in the next."""
    with pylocks.Domain(vcpus=processes + SPARE_VCPUS, locks=16) as domain:
        cell = pylocks.TicketLock(domain=domain, policy=policy)
        with found.open(cell) as lock:
            yield lock


def facts(found: CSubject, policy: str) -> dict[str, Any]:
    """What this process is, or {"unavailable": why}."""
    try:
        with _open(found, policy, 1) as lock:
            lock.pairs(1)
            with pylocks.Domain() as domain:
                told = {"protocol": domain.protocol, "slow_path": domain.slow_path}
    except (ValueError, OSError, pylocks.PylocksError) as error:
        return {"unavailable": str(error)}
    sites = [op for op in pylocks.ops() if op.module in ("pylocks._lock", "bench.csubjects")]
    return {
        **(told if found.name.startswith("pylocks") else {}),
        "pylocks": pylocks.__version__,
        "sites": len(sites),
        "patched": sum(site.kind in ("nop", "inline", "call") for site in sites),
    }


def main() -> None:
    """Serve standard input until it ends."""
    asked = json.loads(sys.stdin.readline())
    found, policy = subject(asked["subject"]), asked["policy"]
    answer(facts(found, policy))
    lib = library()
    ticks_per_ns = lib.bench_ticks_per_ns()
    for line in sys.stdin:
        plan = arena.Slice(**json.loads(line))
        with _open(found, policy, plan.processes) as lock:
            raw = lock.raw
            sample = arena.run(plan, lambda control, number, raw=raw: lib.bench_work(raw, control, number), ticks_per_ns)
        answer(asdict(sample))
