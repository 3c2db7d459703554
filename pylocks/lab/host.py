"""The process of one contender in the laboratory; as pylocks.bench.host, with a thief in its slices."""

from __future__ import annotations

import json
import os
import sys
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Any

from pylocks.bench.arena import Arena, Crew, figures, lead
from pylocks.bench.csubjects import CSubject, library, subject
from pylocks.bench.host import facts, opened
from pylocks.bench.process import answer
from pylocks.bench.sample import Busy

from . import quota
from .plan import StolenSlice
from .thief import Loot, Scene, Thief

__all__ = ["main", "play"]

HUMILITY = 5
"""The vCPUs' nice value over ours, so that the thief gets a turn among so many who spin."""


def play(found: CSubject, policy: str, plan: StolenSlice, ticks_per_ns: float) -> dict[str, Any]:
    """One slice: its sample, and what was stolen; OSError."""
    lib = library()
    # What locks nothing has no holder to aim at: it shows what the work costs, whoever is stopped.
    idle = plan.aim in ("nobody", "quota") or (not found.excludes and plan.aim in ("holder", "next"))
    with opened(found, policy, plan.processes) as (lock, cell):
        arena, busy = Arena(plan), Busy()
        with quota.group(plan) if plan.aim == "quota" else nullcontext() as group:

            def work(number: int) -> None:
                os.nice(HUMILITY)
                if group is not None:
                    group.enter()
                lib.bench_work(lock.raw, arena.control, number, lib.BENCH_CONTEND)

            loot = asdict(Loot())
            with Crew(plan, arena, work) as crew:
                scene = Scene(plan, arena, cell)
                with nullcontext() if idle else Thief(scene) as thief:
                    killed = lead(arena, plan)
                    if thief is not None:
                        loot = thief.loot()
            if group is not None:
                loot |= {"stolen": None, "slices": group.exhausted()}
        arena.check()
        sample = figures(arena, crew.used, killed, ticks_per_ns)
    return {**asdict(replace(sample, others=busy.others())), "loot": loot}


def main() -> None:
    """Serve standard input until it ends."""
    library().bench_die_with(os.getppid())
    asked = json.loads(sys.stdin.readline())
    found, policy = subject(asked["subject"]), asked["policy"]
    answer(facts(found, policy))
    ticks_per_ns = library().bench_ticks_per_ns()
    for line in sys.stdin:
        answer(play(found, policy, StolenSlice(**json.loads(line)), ticks_per_ns))
