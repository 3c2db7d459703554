"""A lock and those who have to do with it, as they are at one moment: for findings and long stalls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pylocks._core import ffi, lib

from .area import ChaosArea
from .crew import Crew, Sitter


class Starvation:
    """How long those who have to do with a lock lack a CPU, from the moment of a kill on."""

    def __init__(self, crew: Crew, area: ChaosArea) -> None:
        self._crew = crew
        self._before: dict[int, tuple[Sitter, int]] = {}
        self._holders: dict[int, int] = {}
        for sitter in crew.sitting():
            self._before[sitter.life] = sitter, starved(sitter.pid) or 0
            for claim in area.claims(sitter.life):
                if claim.marked:
                    self._holders[claim.lock] = sitter.life

    def of(self, lock: int, life: int) -> int:
        """Nanoseconds for which this life, and whoever held the lock, were runnable without a CPU since."""
        total = 0
        for each in {life, self._holders.get(lock, life)}:
            sitter, before = self._before.get(each, (None, 0))
            if sitter is not None and self._crew.sits(sitter):  # else its pid may be another's
                total += max(0, (starved(sitter.pid) or 0) - before)
        return total


def take(lock: int, index: int, domain: Any, area: ChaosArea, crew: Crew) -> dict[str, Any]:
    """The lock's cell, of that index, and mark, its holder and waiters, the domain's mutex and the dead."""
    cell = domain.cell(index)
    queue = domain.cell(index + 1) if domain.policy(index) == "bounded" else None
    residue = ffi.new("struct plk_residue *")
    lib.plk_residue(domain.address, residue)
    vcpus = domain.vcpus()
    return {
        "head": cell.head,
        "tail": cell.tail,
        "owner_vcpu": cell.owner_vcpu if cell.owned else None,
        "slow": cell.slow,
        "flags": cell.flags & 0xFFFF,
        "queue": None if queue is None else [queue.head, queue.tail, queue.owned and queue.owner_vcpu],
        "mark": int(area.marks(lock).mark) - 1,
        "guard_tid": residue.guard_tid,
        "dying": len(crew.dying),
        "stopped": [sitter.seat for sitter in crew.sitting() if sitter.stopped],
        "vcpus": [
            {
                "index": vcpu.index,
                "pid": vcpu.pid,
                "alive": vcpu.alive,
                "owns": cell.owned and cell.owner_vcpu == vcpu.index,
                "waits_for": vcpu.waiting_for,
                "ticket": vcpu.ticket,
                "parked": vcpu.parked,
                "held": vcpu.held,
                "state": state(vcpu.pid),
                "starved_ns": starved(vcpu.pid),
            }
            for vcpu in vcpus
            if vcpu.waiting_for == index
            or not vcpu.alive
            or (queue is not None and queue.owned and queue.owner_vcpu == vcpu.index)
            or (cell.owned and cell.owner_vcpu == vcpu.index)
            or vcpu.pid == residue.guard_tid
        ],
    }


def later(sight: dict[str, Any]) -> None:
    """Add how long each of those seen has waited for a CPU since, as far as it still lives."""
    for vcpu in sight["vcpus"]:
        now, before = starved(vcpu["pid"]), vcpu.pop("starved_ns")
        vcpu["starved_since_ns"] = None if now is None or before is None else now - before


def state(pid: int) -> str | None:
    """R, S, D, T or Z, as in /proc; None if it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def starved(pid: int) -> int | None:
    """Nanoseconds it has spent runnable without a CPU; None if that is not known."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[1])
    except (OSError, IndexError):
        return None
