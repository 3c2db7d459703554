"""Rounds of all settings: a batch of about 2 ms of each subject, in random order.

Times drift, on shared machines by half from one second to the next, so two times that were not taken
together say nothing.  Here all subjects take turns in one process; a round is one batch of every subject.
The process settings (bench.settings) take turns round by round, too, each in a process of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from ..options import Options
from ..process import Process, Target
from ..results import Found
from ..sample import Sample
from ..settings import DEFAULT, SETTINGS, Setting
from .cases import OURS, PEERS, Case, all_cases
from .worker import Plan

__all__ = ["as_found"]

BATCH_MS, QUICK_BATCH_MS = 2.0, 0.5


@dataclass(frozen=True)
class Line:
    """One process: which rows it gives."""

    setting: Setting
    target: Target
    suffix: str
    """What its subjects are called beside the default's."""

    @property
    def cases(self) -> list[Case]:
        """What it measures: all, or our own to be compared with the default's."""
        if not self.suffix:
            return list(all_cases())
        return [Case(operation, subject) for operation, subject in OURS.items()]


def as_found(options: Options, tell: Callable[[str], None]) -> Found:
    """Measure; build.CompilerError, ProcessError."""
    lines = [
        Line(setting, Target(), "" if setting is DEFAULT else f", {setting.name}") for setting in SETTINGS
    ]
    if options.against is not None:
        lines.append(Line(DEFAULT, options.against, f"@{options.against.name}"))
    wanted = [operation for operation in OURS if options.wants(operation, True)]
    found = Found({}, {name: {"name": name, "reference": PEERS[name]} for name in wanted}, {})
    with ExitStack() as stack:
        processes = []
        for line in lines:
            process = stack.enter_context(Process("uncontended.worker", line.setting, line.target))
            plan = Plan(
                [(case.operation, case.subject) for case in line.cases],
                QUICK_BATCH_MS if options.quick else BATCH_MS,
                options.seed,
            )
            _note(found, line, process.ask(asdict(plan)))
            processes.append(process)
        rounds = options.uncontended_rounds
        for number in range(rounds):
            tell(f"round {number + 1} of {rounds}")
            for line, process in zip(lines, processes, strict=True):
                times = process.ask("round")
                for case in line.cases:
                    if case.key in times and case.operation in wanted:
                        found.cells.setdefault(case.operation, {}).setdefault(
                            case.subject + line.suffix, []
                        ).append(_sample(times[case.key]))
    return found


def _note(found: Found, line: Line, facts: dict[str, Any]) -> None:
    missing = facts.pop("unavailable")
    for case in line.cases:
        name = case.subject + line.suffix
        if case.key in missing:
            found.facts[name] = {"unavailable": missing[case.key]}
        else:
            found.facts.setdefault(name, {**facts, "batches": {}})["batches"][case.operation] = facts[
                "batches"
            ][case.key]


def _sample(ns: float) -> dict[str, Any]:
    """One batch, in CPU time; there is no waiting to tell of."""
    return {**asdict(Sample(seconds=ns / 1e9, acquisitions=1, rate=1e9 / ns)), "ns": ns}
