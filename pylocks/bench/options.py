"""What a run is told, validated."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from .process import Target

__all__ = ["Options"]

QUICK_ROUNDS, ROUNDS = 3, 5
QUICK_SECONDS, SECONDS = 0.1, 0.3
QUICK_WARM_MS, WARM_MS = 30, 100


@dataclass(frozen=True)
class Options:
    """How to measure, and what."""

    scenarios: tuple[str, ...] = ()
    """Empty: all."""
    quick: bool = False
    rounds: int = ROUNDS
    seconds: float = SECONDS
    """A slice."""
    seed: int = 1
    subjects: tuple[str, ...] = ()
    """Empty: all that a scenario names."""
    cells: tuple[str, ...] = ()
    """Names of cells, or what stands before or behind their colon; empty: all."""
    against: Target | None = None
    """Another pylocks to measure beside this one."""

    @property
    def warm_ms(self) -> int:
        """Before each slice."""
        return QUICK_WARM_MS if self.quick else WARM_MS

    @property
    def uncontended_rounds(self) -> int:
        """Batches are short: there can be more."""
        return self.rounds * 5 if self.quick else self.rounds * 10 + 1

    def wants(self, cell: str, quick: bool) -> bool:
        """Whether a cell is to be measured."""
        if self.cells:
            return cell in self.cells or any(part in self.cells for part in cell.split(":"))
        return quick or not self.quick

    def as_json(self) -> dict[str, Any]:
        """For the results."""
        told = asdict(self)
        told["against"] = None if self.against is None else self.against.name
        return told
