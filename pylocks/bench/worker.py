"""A process that measures rounds when asked; bench.ratios starts one for each setting.

It speaks JSON, a line for each message.  The first line it reads is a Plan, which it answers with
Facts; every further line asks for one round, which it answers with {case: ns per operation}.  It
ends when its input does.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pylocks
from .cases import Batch, Case, calibrate
from .settings import Setting

ROOT = Path(__file__).resolve().parent.parent
NS_PER_MS = 1e6


class WorkerError(RuntimeError):
    """A worker ended before it had answered."""


@dataclass(frozen=True)
class Plan:
    """What a worker is to measure."""

    cases: list[tuple[str, str]]
    """(operation, subject)"""
    batch_ms: float
    seed: int
    """Of the order of the cases, which is another in every round."""
    cpu: int | None
    """Pin the process to it; None: leave that to the scheduler."""


@dataclass(frozen=True)
class Facts:
    """What a worker turned out to be."""

    protocol: str
    slow_path: str
    sites: int
    """Patch sites of pylocks._lock and of the C subjects."""
    patched: int
    batches: dict[str, int]
    """Case -> operations in a batch."""


class Rounds:
    """The open cases of one process."""

    def __init__(self, plan: Plan, stack: ExitStack) -> None:
        self._order = random.Random(plan.seed)
        self._cases: list[tuple[str, Batch, int]] = []
        opened = [
            (case.key, stack.enter_context(case.open())) for case in (Case(*pair) for pair in plan.cases)
        ]
        # Only now: what pylocks chose depends on the CPUs that it saw when it was attached.
        if plan.cpu is not None:
            os.sched_setaffinity(0, {plan.cpu})
        for key, batch in opened:
            self._cases.append((key, batch, calibrate(batch, plan.batch_ms * NS_PER_MS)))

    def facts(self) -> Facts:
        """What this process is."""
        domain = pylocks.TicketLock().domain
        sites = [op for op in pylocks.ops() if op.module in ("pylocks._lock", "bench.csubjects")]
        return Facts(
            protocol=domain.protocol,
            slow_path=domain.slow_path,
            sites=len(sites),
            patched=sum(site.kind in ("nop", "inline", "call") for site in sites),
            batches={key: n for key, _, n in self._cases},
        )

    def measure(self) -> dict[str, float]:
        """One batch of each case, in random order: ns per operation."""
        self._order.shuffle(self._cases)
        return {key: batch(n) / n for key, batch, n in self._cases}


class Worker:
    """The other end: a running worker process.  Raises WorkerError when it fails."""

    def __init__(self, setting: Setting, plan: Plan) -> None:
        self.setting = setting
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pylocks.bench.worker"],
            cwd=ROOT,
            env=setting.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        try:
            self.facts = Facts(**self._ask(asdict(plan)))
        except BaseException:
            self.close()
            raise

    def round(self) -> dict[str, float]:
        """Have it measure one round."""
        answer: dict[str, float] = self._ask("round")
        return answer

    def _ask(self, message: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(message) + "\n")
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(
                f"the process that measures {self.setting.name!r} ended with status "
                f"{self._process.wait()}; what it said stands above"
            )
        return json.loads(line)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def main() -> None:
    """Serve standard input until it ends."""
    with ExitStack() as stack:
        plan = Plan(**json.loads(sys.stdin.readline()))
        rounds = Rounds(plan, stack)
        print(json.dumps(asdict(rounds.facts())), flush=True)
        for _ in sys.stdin:
            print(json.dumps(rounds.measure()), flush=True)


if __name__ == "__main__":
    main()
