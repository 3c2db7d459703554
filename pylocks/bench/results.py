"""What a run finds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["SCHEMA", "Found", "Samples", "Spread", "ratio", "typical", "value"]

SCHEMA = 1

Samples = Mapping[str, Sequence[Mapping[str, Any]]]
"""subject -> a sample for each round; sample.Sample says what is in one"""


@dataclass(frozen=True)
class Found:
    """All that was measured of one scenario."""

    cells: dict[str, dict[str, list[dict[str, Any]]]]
    """cell -> subject -> a sample for each round"""
    loads: dict[str, dict[str, Any]]
    """cell -> what it is"""
    facts: dict[str, dict[str, Any]]
    """subject -> what its process turned out to be, or {"unavailable": why}"""


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Of at least one sample."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0])
        q1, median, q3 = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, q1, q3)


def value(sample: Mapping[str, Any], measure: str) -> float | None:
    """A figure of a sample: one of its own, or of its events as "events.kicks"."""
    name, _, event = measure.partition(".")
    found = sample.get(name)
    if event:
        found = found.get(event) if found else None
    return None if found is None else float(found)


def typical(samples: Sequence[Mapping[str, Any]], measure: str) -> Spread | None:
    """The median of a figure; None if no sample has it."""
    values = [found for sample in samples if (found := value(sample, measure)) is not None]
    return Spread.of(values) if values else None


def ratio(
    mine: Sequence[Mapping[str, Any]], others: Sequence[Mapping[str, Any]], measure: str
) -> Spread | None:
    """The median of the rounds' ratios of a figure; None if no round has both."""
    found = []
    for one, other in zip(mine, others, strict=True):
        above, below = value(one, measure), value(other, measure)
        if above is not None and below:
            found.append(above / below)
    return Spread.of(found) if found else None
