"""What is stolen from the processes of a slice, and how they are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

from pylocks.bench.arena import Slice
from pylocks.bench.scenarios import interface

__all__ = ["AIMS", "MS", "Cell", "StolenSlice"]

MS = 1_000_000

AIMS = {
    "nobody": "nothing is stolen",
    "independent": "every vCPU is stopped for a slice of each period, at a time of its own",
    "gang": "all vCPUs are stopped together for a slice of each period",
    "holder": "in each period whoever holds the lock is stopped for a slice",
    "next": "in each period the next in line is stopped, for a slice from when its turn has come",
    "quota": "the vCPUs are in a control group whose quota leaves them their share of each period",
}
"""Whom the thief is after."""


@dataclass(frozen=True, kw_only=True)
class StolenSlice(Slice):
    """A slice of which parts are stolen."""

    aim: str
    """One of AIMS."""
    steal: float
    """The part of each period that is stolen, of each vCPU or, with an aim at one, of that one."""
    period_ns: int
    thief_cpus: Sequence[int]
    """Where the thief may run."""


@dataclass(frozen=True)
class Cell(interface.Cell):
    """A load from which is stolen."""

    aim: str = "nobody"
    steal: float = 0.0
    period_ns: int = 20 * MS
    thief_cpus: Sequence[int] = field(default=())

    def slice(
        self, speed: interface.Speed, seconds: float, warm_ms: int, *, collapses: bool = False, seed: int = 1
    ) -> StolenSlice:
        """As of any cell, and what is stolen."""
        plain = super().slice(speed, seconds, warm_ms, collapses=collapses, seed=seed)
        return StolenSlice(
            **asdict(plain),
            aim=self.aim,
            steal=self.steal,
            period_ns=self.period_ns,
            thief_cpus=self.thief_cpus,
        )
