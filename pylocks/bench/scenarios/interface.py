"""What a scenario is: loads, and who bears them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..arena import Slice

if TYPE_CHECKING:
    from ..options import Options
    from ..results import Found

__all__ = ["PEERS", "SHAPES", "Cell", "Scenario", "Speed", "grid", "stretch"]

SHAPES: dict[str, tuple[int, int]] = {"S": (200, 1000), "M": (2000, 2000), "L": (20000, 2000)}
"""ns in the critical section, and between on average."""

PEERS = (
    "ticket_yield", "ticket_spin", "ttas", "adaptive",
    "pthread_mutex", "pthread_robust", "pthread_pi", "sem_t",
)  # fmt: skip


@dataclass(frozen=True)
class Speed:
    """How much work a nanosecond is, measured once for all subjects of a run."""

    turns_per_ns: float
    loops_per_ns: float


@dataclass(frozen=True)
class Cell:
    """One load: one table."""

    name: str
    """Within its scenario."""
    processes: int
    inside_ns: float
    outside_ns: float
    game: str = "contend"
    pin: bool = False
    quick: bool = True
    """Whether it is part of the quick run."""
    shape: str = ""
    stretch: int = 1
    """Slices are so many times as long as those of other cells."""

    def slice(
        self, speed: Speed, seconds: float, warm_ms: int, *, collapses: bool = False, seed: int = 1
    ) -> Slice:
        """What it asks of the processes."""
        return Slice(
            self.game,
            self.processes,
            self.inside_ns,
            self.outside_ns,
            speed.turns_per_ns,
            speed.loops_per_ns,
            seconds * self.stretch,
            warm_ms,
            seed,
            self.pin,
            collapses,
        )


def stretch(processes: int) -> int:
    """Of a crowd: in a short slice each has few turns, and some by chance more than others."""
    return 3 if processes >= 64 else 1


@dataclass(frozen=True)
class Scenario:
    """One row of the table of scenarios."""

    name: str
    meaning: str
    """In one line."""
    cells: tuple[Cell, ...]
    lineup: tuple[str, ...]
    """Names of contenders."""
    reference: str
    """The one with which the others are compared."""
    rate: str = "acq/s"
    """What is counted."""
    wait: str = "wait"
    """What the times are of."""
    measure: Callable[[Options, Callable[[str], None]], Found] | None = None
    """How it is measured, if not as the others are: the cells are then what it says."""
    module: str = ""
    """Whose main() its processes run, if not that of their contender's."""


def grid(counts: tuple[int, ...], rare: tuple[int, ...] = (), *, pin: bool = False) -> tuple[Cell, ...]:
    """All shapes for each number of processes; the rare ones are not part of the quick run."""
    return tuple(
        Cell(f"{n}:{shape}", n, *work, pin=pin, quick=n not in rare, shape=shape, stretch=stretch(n))
        for n in counts
        for shape, work in SHAPES.items()
    )
