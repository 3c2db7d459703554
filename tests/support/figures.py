"""Results of benchmarks that nobody ran."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pylocks.bench import scenarios
from pylocks.bench.sample import Sample


def result(cells: dict[str, dict[str, list[dict[str, Any]]]], name: str = "overcommit") -> dict[str, Any]:
    """A run that found these."""
    one = scenarios.scenario(name)
    loads = {cell.name: asdict(cell) for cell in one.cells if cell.name in cells}
    facts: dict[str, dict[str, Any]] = {subject: {} for samples in cells.values() for subject in samples}
    return {"scenarios": {name: {"cells": cells, "loads": loads, "facts": facts}}}


def sample(**figures: Any) -> dict[str, Any]:
    """One slice of a second, with these figures."""
    return {**asdict(Sample(seconds=1, acquisitions=1, rate=1)), **figures}
