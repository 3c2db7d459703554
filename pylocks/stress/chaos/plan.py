"""What a row of chaos is asked to do, and what is known of it afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..row import Plan
from .area import Claim


@dataclass(frozen=True)
class ChaosPlan(Plan):
    """A row in which participants are killed."""

    module: ClassVar[str] = "chaos.row"
    kills: int  #: at least so many

    @property
    def most_kills(self) -> int:
        """After which nobody is killed any more."""
        return 2 * self.kills + 1000

    @property
    def lives(self) -> int:
        """Processes that can take part, one after the other: the kills, all seats, and the auditor."""
        return self.most_kills + 3 * self.processes + 1


@dataclass(frozen=True)
class Death:
    """The end of a process that was killed."""

    life: int
    seat: int
    condemned: int  #: CLOCK_MONOTONIC ns, just before the signal
    gone: int  #: when it had been reaped
    claims: tuple[Claim, ...]  #: as they stood, outermost first
    turns: int  #: that it had begun
    stopped: bool  #: by SIGSTOP when it was killed

    @property
    def inside(self) -> bool:
        """Whether it held a lock for certain."""
        return any(claim.phase == "inside" or claim.marked for claim in self.claims)

    @property
    def waiting(self) -> bool:
        """Whether it was acquiring a lock."""
        return any(claim.phase == "waiting" and not claim.marked for claim in self.claims)

    @property
    def releasing(self) -> bool:
        """Whether it was releasing a lock."""
        return any(claim.phase == "releasing" and not claim.marked for claim in self.claims)


@dataclass(frozen=True)
class Stop:
    """A time during which a process was stopped."""

    seat: int
    begin: int  #: CLOCK_MONOTONIC, ns
    end: int
    locks: frozenset[int]  #: that it held, waited for or released
    guard: bool  #: it held the domain's mutex, without which nobody recovers


@dataclass(frozen=True)
class Stall:
    """From the death of one who had to do with a lock to the next grant to one who waited then.

    ``begin`` is when a living holder left the lock, if there was one who did so later.
    """

    lock: int
    life: int  #: the dead
    how: str  #: phase of the claim: "waiting", "inside" or "releasing"
    killed: int  #: CLOCK_MONOTONIC, ns
    begin: int
    end: int
    starved: int = 0  #: ns of it for which the one who got the lock, and who held it before, lacked a CPU
