"""When a crowd leaves a lock, the last waiters are not left to their watchdogs.

While the lock is used, whoever leaves it looks after the queue; when all have had enough, nobody comes
by any more, and each sleeper depends on the one before it.
"""

from __future__ import annotations

import pytest

import pylocks
from pylocks._core import lib as core
from pylocks.bench.arena import Arena, Crew, Slice, figures, lead
from pylocks.bench.csubjects import library, subject

NO_WATCHDOG_NS = 10**13
"""Nearly three hours: who is not woken, sleeps on, until the crew's patience is over."""
CROWDS = 8


@pytest.mark.parametrize("processes", [4, 24])
@pytest.mark.parametrize("policy", ["fifo", "bounded"])
def test_a_crowd_leaves_without_a_watchdog(policy: str, processes: int) -> None:
    plan = Slice("contend", processes, 2000, 2000, 1, 1, 0.02, warm_ms=10)
    lib = library()
    for _ in range(CROWDS):
        arena = Arena(plan)
        with pylocks.Domain(vcpus=processes + 1, locks=2, protocol="enlightened") as domain:
            with subject("pylocks").open(pylocks.TicketLock(domain=domain, policy=policy)) as lock:

                def work(number: int, raw: object = lock.raw, arena: Arena = arena) -> None:
                    core.plk_watchdog_set(NO_WATCHDOG_NS)
                    lib.bench_work(raw, arena.control, number, lib.BENCH_CONTEND)

                with Crew(plan, arena, work) as crew:
                    killed = lead(arena, plan)
            assert killed == 0, "somebody slept on"
            assert figures(arena, crew.used, killed, 1.0).violations == 0
            assert domain.stats().watchdogs == 0
