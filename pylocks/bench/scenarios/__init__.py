"""The table of scenarios: one row, one file."""

from __future__ import annotations

from . import (
    array,
    convoy,
    death,
    fairness,
    family,
    handover,
    overcommit,
    parked,
    python,
    readers,
    threads,
    two,
    uncontended,
)
from .interface import SHAPES, Cell, Scenario, Speed

__all__ = ["SCENARIOS", "SHAPES", "Cell", "Scenario", "Speed", "scenario"]

SCENARIOS: tuple[Scenario, ...] = (
    uncontended.SCENARIO,
    two.SCENARIO,
    overcommit.SCENARIO,
    handover.SCENARIO,
    fairness.SCENARIO,
    python.SCENARIO,
    threads.SCENARIO,
    convoy.SCENARIO,
    array.SCENARIO,
    parked.SCENARIO,
    death.SCENARIO,
    family.SCENARIO,
    readers.SCENARIO,
)


def scenario(name: str) -> Scenario:
    """The scenario of that name; LookupError."""
    for found in SCENARIOS:
        if found.name == name:
            return found
    raise LookupError(f"no scenario {name!r}; there are {', '.join(s.name for s in SCENARIOS)}")
