"""The wait-for graph of a domain, read from its shared memory without taking part in it.

A thread waits for the one that holds the lock; and for those ahead of it in the queue whose wait a
signal handler has interrupted, since nobody is served before them.  Any other in the queue waits
for the same holder.

A Mutex, an RMutex and an RWLock have holders, too, each of whom has to let go: who wants to read while
others do waits for a writer ahead of it, and that for all who read.  These holders have no tickets.  But
each member of a cycle has slept all the while between the two looks, and whoever sleeps takes nothing: what
it held at both, it held in between.

What is read may have passed by the time the rest is.  So each edge has an identity of numbers that
do not come again (csrc/hv/deadlock.c says which and why that is enough), and a cycle counts if a
second look, begun when the first had ended, finds each of its edges again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psutil

from pylocks import errors
from pylocks._core import ffi, lib
from pylocks.sync import KINDS

if TYPE_CHECKING:
    from pylocks._core import CData
    from pylocks.domain import Domain

__all__ = ["Cycle", "Member", "error_found", "find"]


@dataclass(frozen=True)
class Member:
    """A thread that waits for the next one in its cycle, and for which the one before waits."""

    pid: int
    tid: int
    process: str
    """Name of its process, of a script where that is Python; "" if there is none to be had."""
    holds: str | int
    """What the one before waits for: the lock's name, or its index if it has none."""
    wants: str | int
    """What it waits for itself, and the next one holds."""
    waiting_s: float
    queued: bool = False
    """It does not hold that lock: a signal handler keeps it at its place in the queue."""

    def __str__(self) -> str:
        has = "is ahead in the queue of" if self.queued else "holds"
        who = f"thread {self.tid} of process {self.pid}{f' ({self.process})' if self.process else ''}"
        waits = f"has waited {self.waiting_s:.3f} s for lock {self.wants!r}"
        return f"{who} {has} lock {self.holds!r} and {waits}"


@dataclass(frozen=True)
class Cycle:
    """Threads of which each waits for the next, and the last for the first."""

    members: tuple[Member, ...]

    @property
    def identity(self) -> frozenset[tuple[int, int, str | int, str | int]]:
        """What stays the same as long as the cycle stands, whoever is named first."""
        return frozenset((each.pid, each.tid, each.holds, each.wants) for each in self.members)

    def __str__(self) -> str:
        return "; ".join(map(str, self.members))


@dataclass(frozen=True)
class _Waiter:
    """A vCPU and its wait."""

    vcpu: int
    generation: int
    pid: int
    tid: int
    shifts: int
    since: int
    wanted: int


@dataclass(frozen=True)
class _Edge:
    """Why a waiter can't go on before another vCPU does."""

    waiter: _Waiter
    blocker: int
    ticket: int
    """Under which the lock is held; or of the interrupted wait; 0 where there are none."""
    position: tuple[int, int] | None = None
    """(cell + 1, ticket) of the waiter, if the blocker is ahead of it in a queue; None: it holds the lock."""


_HELD = tuple(KINDS[name] for name in ("Mutex", "RMutex", "RWLock"))

_Graph = Mapping[int, Sequence[_Edge]]
"""Edges from each waiter, by its vCPU."""


def find(domain: Domain) -> list[Cycle]:
    """The deadlocks that stand in the domain now; ClosedError.

    One of a pair of cycles with a member in common is told of.  A wait with a timeout counts as any
    other.  Needs no vCPU slot, takes no lock, and is not noticed by those it looks at.
    """
    found = _cycles(_look(domain))
    if not found:
        return []
    again = _look(domain)
    found = [edges for edges in found if all(edge in again.get(edge.waiter.vcpu, ()) for edge in edges)]
    names = _names(domain) if found else {}
    return [_told(edges, names) for edges in found]


def error_found(domain: Domain, where: str) -> errors.DeadlockError:
    """The exception for the acquisition of this thread that the core has just refused."""
    raw = ffi.new("struct plk_member *")
    waiters: list[_Waiter] = []
    behind = []
    while not domain.closed and len(waiters) < lib.plk_cycle_found(domain.address, len(waiters), raw):
        waiters.append(_Waiter(raw.vcpu, raw.generation, raw.pid, raw.tid, raw.shifts, raw.since, raw.wanted))
        behind.append(raw.owner == 0)
    names, now = _names(domain), lib.plk_now()
    members = (
        _member(who, waiters[at - 1].wanted, now, names, behind[at - 1]) for at, who in enumerate(waiters)
    )
    cycle = Cycle(tuple(members))
    return errors.DeadlockError(
        f"waiting for {where} would never end: {cycle}. The first of them, this thread, gives way: "
        "release what it holds and begin again, or take these locks in the same order everywhere.",
        cycle,
    )


# ------------------------------------------------------------------ reading


def _look(domain: Domain) -> _Graph:
    """The edges that are there now; each by itself is true, together they may never have been."""
    vcpus = [v for v in _vcpus(domain) if v.state == lib.PLK_VCPU_ONLINE and v.life == lib.PLK_LIFE_ALIVE]
    interrupted = [v for v in vcpus if v.depth]
    return {v.index: list(_edges(domain, v, interrupted)) for v in vcpus if v.wait_since and v.wanted}


def _vcpus(domain: Domain) -> Iterator[CData]:
    index = 0
    while (view := domain._vcpu(index)) is not None:
        yield view
        index += 1


def _edges(domain: Domain, v: CData, interrupted: Sequence[CData]) -> Iterator[_Edge]:
    try:
        cell = domain.cell(v.wanted - 1)
    except errors.UnknownLockError:
        return  # overwritten, or just changing
    waiter = _Waiter(v.index, v.generation, v.pid, v.tid, v.shifts, v.wait_since, v.wanted - 1)
    if cell.flags & lib.PLK_CELL_SYNC:
        if not v.pending:  # else it waits for the guard, which is nobody's for long
            # Who waits for a mutex that it took itself waits for another thread to release it.
            holders = (holder for holder in _holders(domain, v.wanted - 1, cell) if holder != v.index)
            yield from (_Edge(waiter, holder, 0) for holder in holders)
        return
    if cell.owned and cell.owner_vcpu != v.index:
        yield _Edge(waiter, cell.owner_vcpu, cell.owner_ticket)
    gate = v.wanted if cell.flags & lib.PLK_CELL_BOUNDED else 0
    for other in interrupted:
        for at in range(min(other.depth, len(other.outer))):
            claim = other.outer[at]
            ahead = claim.cell == v.pending and claim.ticket < v.ticket != lib.PLK_NO_TICKET
            # Who waits in the queue of a bounded lock comes after all who are at its gate.
            if other.index != v.index and (ahead or (claim.cell == gate != v.pending)):
                yield _Edge(waiter, other.index, claim.ticket, (v.pending, v.ticket))


def _holders(domain: Domain, index: int, cell: CData) -> Iterator[int]:
    """vCPUs that must all let go before anybody who waits for the object gets it."""
    kind = cell.flags >> 8 & 0xFF
    if kind not in _HELD:
        return
    rows = ffi.new("struct plk_holder[]", domain.vcpu_limit)
    with domain._guard:
        count = lib.plk_sync_holders(domain._live(), index, kind, rows, len(rows))
    for at in range(count):  # negative: overwritten, or just freed
        if rows[at].alive:
            yield rows[at].vcpu


# ------------------------------------------------------------------- cycles


def _cycles(graph: _Graph) -> list[list[_Edge]]:
    """Shortest cycles without a member in common; each begins with who has waited longest."""
    found: list[list[_Edge]] = []
    seen: set[int] = set()
    for start in sorted(graph):
        edges = None if start in seen else _way_back(graph, start)
        if edges is None or not seen.isdisjoint(edge.waiter.vcpu for edge in edges):
            continue
        seen.update(edge.waiter.vcpu for edge in edges)
        first = min(range(len(edges)), key=lambda at: edges[at].waiter.since)
        found.append(edges[first:] + edges[:first])
    return found


def _way_back(graph: _Graph, start: int) -> list[_Edge] | None:
    """The shortest way from a vCPU to itself."""
    came: dict[int, _Edge] = {}
    ahead = deque([start])
    while ahead:
        for edge in graph.get(ahead.popleft(), ()):
            if edge.blocker in came:
                continue
            came[edge.blocker] = edge
            if edge.blocker == start:
                way = [edge]
                while way[-1].waiter.vcpu != start:
                    way.append(came[way[-1].waiter.vcpu])
                return way[::-1]
            ahead.append(edge.blocker)
    return None


# ------------------------------------------------------------------ telling


def _told(edges: Sequence[_Edge], names: Mapping[int, str]) -> Cycle:
    now, members = lib.plk_now(), []
    for at, edge in enumerate(edges):
        who, before = edge.waiter, edges[at - 1]
        members.append(_member(who, before.waiter.wanted, now, names, before.position is not None))
    return Cycle(tuple(members))


def _member(who: _Waiter, holds: int, now: int, names: Mapping[int, str], queued: bool) -> Member:
    return Member(
        pid=who.pid,
        tid=who.tid,
        process=_process_name(who.pid),
        holds=names.get(holds, holds),
        wants=names.get(who.wanted, who.wanted),
        waiting_s=max(now - who.since, 0) / 1e9,
        queued=queued,
    )


def _names(domain: Domain) -> dict[int, str]:
    """Names of locks by index; none while another thread is busy with the domain: never waits."""
    if domain.closed or domain.is_array or not domain._guard.acquire(blocking=False):
        return {}
    try:
        return {index: name for name, index in domain._names()}
    finally:
        domain._guard.release()


def _process_name(pid: int) -> str:
    try:
        process = psutil.Process(pid)
        name = process.name()
        if name.startswith("python"):
            words = [*process.cmdline()[1:], ""]
            script = words[1] if words[0] == "-m" else words[0]
            name = name if script.startswith("-") else script.rpartition("/")[2] or name
    except psutil.Error:
        return ""
    return name
