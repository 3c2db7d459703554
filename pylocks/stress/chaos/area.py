"""The probe's mapping with the marks of chaos; csrc/probe/chaos.h says what they mean."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pylocks._core import ffi, lib

from ..shared import KINDS, Area

PHASES = ("outside", "waiting", "inside", "releasing")
LEVELS = int(lib.PLK_CHAOS_LEVELS)


@dataclass(frozen=True)
class Claim:
    """What a process had to do with a lock."""

    lock: int
    phase: str  #: one of PHASES
    since: int  #: CLOCK_MONOTONIC ns at which it began to acquire
    marked: bool  #: its mark stood in the lock


@dataclass(frozen=True)
class Grant:
    """That a lock was granted."""

    at: int  #: CLOCK_MONOTONIC, ns
    life: int
    freed: int  #: when the holder before left it, ns; 0: it died inside


@dataclass(frozen=True)
class Report:
    """That an acquire told of its predecessor's death."""

    life: int
    lock: int
    ticket: int
    at: int  #: CLOCK_MONOTONIC, ns
    left: int | None  #: the life whose mark was found
    previous: int  #: when the holder before was granted the lock, ns; 0: never
    sticky: bool  #: the same death had been told of before


class ChaosArea(Area):
    """An Area that interpreters started afresh can map as well.

    workers: one a seat, in which one process after the other sits; lives: processes in all;
    reports: how many are kept.
    """

    def __init__(
        self, workers: int, locks: int, lives: int, *, seed: int, cs_loops: int = 0, outside_loops: int = 0
    ) -> None:
        """As Area's; also OSError without a descriptor."""
        self.lives = self.reports = lives
        self.fd = os.memfd_create("pylocks-chaos")
        super().__init__(workers, locks, seed=seed, cs_loops=cs_loops, outside_loops=outside_loops)
        lib.plk_chaos_init(self.control, lives, self.reports)

    @classmethod
    def existing(cls, fd: int) -> ChaosArea:
        """The one behind a descriptor that was inherited."""
        area = cls.__new__(cls)
        area.fd = fd
        super()._attach(area, fd, os.fstat(fd).st_size)
        chaos = lib.plk_chaos_at(area.control)
        area.workers, area.locks = area.control.workers, area.control.locks
        area.lives, area.reports = chaos.lives, chaos.reports
        return area

    def _size(self, workers: int, locks: int) -> int:
        size = int(lib.plk_chaos_size(workers, locks, self.lives, self.reports))
        if size == 0:
            raise ValueError(f"no mapping for {workers} workers, {self.lives} lives and {locks} locks")
        return size

    def _attach(self, fd: int, size: int) -> None:
        os.ftruncate(self.fd, size)
        super()._attach(self.fd, size)

    def close(self) -> None:
        """Give up the descriptor; the mapping stays."""
        os.close(self.fd)

    def life(self, number: int) -> Any:
        """What that process says of itself."""
        return lib.plk_chaos_life_at(self.control, number)

    def marks(self, index: int) -> Any:
        """The marks of a lock."""
        return lib.plk_chaos_lock_at(self.control, index)

    def claims(self, life: int) -> tuple[Claim, ...]:
        """What the process has to do with locks now, outermost first."""
        me = self.life(life)
        return tuple(
            Claim(
                claim.lock,
                PHASES[claim.phase],
                claim.since,
                int(self.marks(claim.lock).mark) == life + 1,
            )
            for claim in (me.claims[level] for level in range(LEVELS))
            if claim.phase != lib.PLK_CHAOS_OUTSIDE
        )

    def first_grant(self, lock: int, since: int) -> Grant | None:
        """The first to somebody who waited for the lock at that time; None: not yet."""
        found = ffi.new("struct plk_chaos_grant *")
        if not lib.plk_chaos_first_grant(self.control, lock, since, found):
            return None
        return Grant(found.at, found.life, found.freed)

    def told(self) -> list[Report]:
        """All reports there was room for."""
        made = min(int(lib.plk_chaos_at(self.control).reported), self.reports)
        found = (lib.plk_chaos_report_at(self.control, index) for index in range(made))
        return [
            Report(r.life, r.lock, r.ticket, r.at, r.left - 1 if r.left else None, r.previous, bool(r.sticky))
            for r in found
            if r.written
        ]

    def total(self, name: str) -> int:
        """The sum of a counter over all lives."""
        return sum(int(getattr(self.life(number), name)) for number in range(self.lives))

    def violations(self) -> int:
        """Violations that workers have found so far."""
        return sum(
            int(self.worker(number).violations[kind])
            for number in range(self.workers)
            for kind in range(len(KINDS))
        )
