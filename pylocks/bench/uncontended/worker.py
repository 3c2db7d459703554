"""A process that measures rounds when asked; there is one for each setting.

The first line it reads is a Plan, which it answers with Facts; every further line asks for one round,
which it answers with {case: ns per operation}.
"""

from __future__ import annotations

import json
import random
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass

import pylocks

from ..process import answer
from ..subjects import UnavailableError
from .cases import Batch, Case, calibrate

__all__ = ["Facts", "Plan", "main"]

NS_PER_MS = 1e6


@dataclass(frozen=True)
class Plan:
    """What a worker is to measure."""

    cases: list[tuple[str, str]]
    """(operation, subject)"""
    batch_ms: float
    seed: int
    """Of the order of the cases, which is another in every round."""


@dataclass(frozen=True)
class Facts:
    """What a worker turned out to be."""

    pylocks: str
    protocol: str
    slow_path: str
    sites: int
    """Patch sites of pylocks._lock and of the C subjects."""
    patched: int
    batches: dict[str, int]
    """Case -> operations in a batch."""
    unavailable: dict[str, str]
    """Case -> why it can't be had here."""


class Rounds:
    """The open cases of one process."""

    def __init__(self, plan: Plan, stack: ExitStack) -> None:
        self._order = random.Random(plan.seed)
        self._cases: list[tuple[str, Batch, int]] = []
        self._unavailable: dict[str, str] = {}
        for case in (Case(*pair) for pair in plan.cases):
            try:
                batch = stack.enter_context(case.open())
            except UnavailableError as error:
                self._unavailable[case.key] = str(error)
            else:
                self._cases.append((case.key, batch, calibrate(batch, plan.batch_ms * NS_PER_MS)))

    def facts(self) -> Facts:
        """What this process is."""
        domain = pylocks.TicketLock().domain
        sites = [op for op in pylocks.ops() if op.module in ("pylocks._lock", "bench.csubjects")]
        return Facts(
            pylocks=pylocks.__version__,
            protocol=domain.protocol,
            slow_path=domain.slow_path,
            sites=len(sites),
            patched=sum(site.kind in ("nop", "inline", "call") for site in sites),
            batches={key: n for key, _, n in self._cases},
            unavailable=self._unavailable,
        )

    def measure(self) -> dict[str, float]:
        """One batch of each case, in random order: ns per operation."""
        self._order.shuffle(self._cases)
        return {key: batch(n) / n for key, batch, n in self._cases}


def main() -> None:
    """Serve standard input until it ends."""
    with ExitStack() as stack:
        plan = Plan(**json.loads(sys.stdin.readline()))
        rounds = Rounds(plan, stack)
        answer(asdict(rounds.facts()))
        for _ in sys.stdin:
            answer(rounds.measure())
