"""From samples to what the experiments are about: what an acquisition costs, and how much is waiting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pylocks.bench.bars import judge
from pylocks.bench.results import Found, typical

from .scenarios import EXPERIMENTS, WORK

__all__ = ["CROWDED", "HOLDS", "derive", "judged"]

CROWDED = 0.25
"""CPUs that other programs may use before claims about a quiet machine are left alone."""
HOLDS = (0.3, 0.8)
"""The claims are stated for half of each period; so much more or less they bear."""


def derive(found: Found) -> None:
    """Add to each sample what it is about.

    cost: CPU ns for each acquisition; waiting: the part of it that is not the work, which is what an
    acquisition costs without a lock; and what was stolen.  The stops of the first round alone are kept.
    """
    for samples in found.cells.values():
        for rounds in samples.values():
            for sample in rounds:
                sample["cost"] = sample["cpu"] / sample["rate"] * 1e9 if sample["rate"] else None
        work = typical(samples.get(WORK, ()), "cost")
        for subject, rounds in samples.items():
            for number, sample in enumerate(rounds):
                loot = sample.pop("loot")
                sample["waiting"] = None
                if subject != WORK and work is not None:
                    sample["waiting"] = _waiting(sample["cost"], work.median)
                sample["thief"] = loot.pop("cpu")
                stops = loot.pop("stops")
                sample |= {**loot, "stops": stops if number == 0 else []}


def _waiting(cost: float | None, work: float) -> float:
    if cost is None:
        return 1.0  # not a single acquisition: all of it was waiting
    return max(0.0, 1 - work / cost) if cost else 0.0


def judged(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every claim of what was run: what was found, and whether it is as expected (None: can't be told)."""
    rows = []
    for one in EXPERIMENTS:
        for claim in one.claims:
            for verdict in judge(result, [claim.bar]):
                met, why = verdict.met, ""
                others = _others(result, one.name, claim.bar.cell)
                steal = result["scenarios"][one.name]["loads"][claim.bar.cell]["steal"]
                if met is None:
                    why = "not measured"
                elif one.steals and not HOLDS[0] <= steal <= HOLDS[1]:
                    met, why = None, f"stated for a steal between {HOLDS[0]:g} and {HOLDS[1]:g}"
                elif claim.quiet and others > CROWDED:
                    met, why = None, f"other programs used {others:.1f} CPUs"
                rows.append({**asdict(verdict), "met": met, "why": why, "text": claim.text})
    return rows


def _others(result: Mapping[str, Any], name: str, cell: str) -> float:
    subjects: Mapping[str, Sequence[Mapping[str, Any]]] = result["scenarios"][name]["cells"][cell]
    found = typical([sample for samples in subjects.values() for sample in samples], "others")
    return 0.0 if found is None else found.median
