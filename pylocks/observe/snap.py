"""snapshot(): one look at a domain."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pylocks import policy
from pylocks._core import ffi, lib
from pylocks.observe.model import Holder, Lock, Snapshot, SyncObject, VCpu, Waiter
from pylocks.observe.objects import Objects
from pylocks.observe.people import People, Person
from pylocks.observe.places import Place, flocked, place_of
from pylocks.observe.reading import Cell, Record, Words
from pylocks.ops import BARRIER_NAMES, PROTOCOL_NAMES

if TYPE_CHECKING:
    from pylocks._core import CData
    from pylocks.domain import Domain

__all__ = ["MOST_UNNAMED", "snapshot"]

MOST_UNNAMED = 4096
"""Of more unnamed locks than that, only those in use are listed."""
_NO_TICKET = int(lib.PLK_NO_TICKET)
_NOBODY = Person()


def snapshot(which: str | Path | Domain | Place, people: People | None = None) -> Snapshot:
    """Look at a domain: by name, "@" and the beginning of an anonymous one's uid, path, or object.

    Takes no lock and registers nothing.  `people`: remembers names of processes from look to look.
    Raises the error that attaching would: UnknownDomainError, ForeignFileError, TruncatedDomainError,
    AbiMismatchError, CorruptDomainError, StaleDomainError, DomainPermissionError.
    """
    place = which if isinstance(which, Place) else place_of(which)
    fd = place.open()
    try:
        words = Words(fd, place.where)
        return _Look(words, os.fstat(fd), people or People()).at(place)
    finally:
        os.close(fd)


@dataclass(frozen=True)
class _Claim:
    """A place in a queue."""

    vcpu: VCpu
    ticket: int | None
    waited_ns: int | None


class _Look:
    def __init__(self, words: Words, status: os.stat_result, people: People) -> None:
        self.words, self.status, self.people = words, status, people
        vcpus, blocks = words.vcpus(), words.cell_blocks()
        self.objects = Objects(words, words.guards(blocks) if words.extent.syncs else [])
        self.taken_ns = int(lib.plk_now())
        vcpus_now, cells_now = words.vcpus(), words.again(blocks)
        self.objects.again()
        self.cells, self.omitted = self._cells(blocks, cells_now)
        self.tombs = words.tombstones()
        held: dict[int, list[int]] = {}
        for index, cell in self.cells.items():
            if cell.owned and not cell.flags & (lib.PLK_CELL_QUEUE | lib.PLK_CELL_SYNC):
                held.setdefault(cell.owner_vcpu, []).append(index)
        self.vcpus: dict[int, VCpu] = {}
        self.generations: dict[int, int] = {}
        self.waited: dict[tuple[int, int], int] = {}  # (vCPU, object) -> ns
        self.claims: dict[int, list[_Claim]] = {}
        for row in words.vcpu_rows(vcpus, vcpus_now):
            self._add(row, held.get(row.index, ()))

    def _cells(self, blocks: list[tuple[int, bytes]], now: list[bytes]) -> tuple[dict[int, Cell], int]:
        """Those to be listed, by index, and how many others were used at some time."""
        self.names = self.words.names()
        array = bool(self.words.found.array)
        rows: dict[int, Cell] = {}
        omitted = 0
        for (first, before), after in zip(blocks, now, strict=True):
            used = self.words.cell_rows(first, before, after, lib.PLK_PICK_USED)
            unnamed = len(used) if array else sum(row.number not in self.names for row in used)
            if unnamed > MOST_UNNAMED or len(rows) > MOST_UNNAMED + len(self.names):
                busy = {row.number for row in self.words.cell_rows(first, before, after, lib.PLK_PICK_BUSY)}
                kept = [row for row in used if row.number in busy or row.number in self.names]
                omitted += len(used) - len(kept)
                used = kept
            rows.update((row.number, row) for row in used)
        return rows, omitted

    def _told_objects(self) -> tuple[SyncObject, ...]:
        """Of many unnamed ones those in use, as of locks."""
        records: Collection[Record] = self.objects.records.values()
        if sum(record.number not in self.names for record in records) > MOST_UNNAMED:
            records = [r for r in records if r.number in self.names or self.objects.in_use(r.number)]
            self.omitted += len(self.objects.records) - len(records)
        return tuple(
            self.objects.told(
                record, self.cells.get(record.number), self.names.get(record.number), self._who, self.waited
            )
            for record in records
        )

    def _who(self, index: int, generation: int) -> VCpu | None:
        """The thread that has that slot, if it is still the one that had it then."""
        return self.vcpus.get(index) if self.generations.get(index) == generation else None

    def _wanted(self, index: int, ticket: int) -> tuple[int, int | None]:
        """(lock, its ticket) of a claim on a cell: a bounded lock has two, of which one is its queue."""
        cell = self.cells.get(index)
        if cell is not None and cell.flags & lib.PLK_CELL_QUEUE and index > 0:
            return index - 1, None
        return index, _ticket(ticket)

    def _add(self, row: CData, holds: Iterable[int]) -> None:
        foreign = self.people.foreign(row.pid_ns)
        asked = row.alive and not foreign
        person = self.people.find(row.pid, row.tid, row.start_time) if asked else _NOBODY
        since = int(row.wait_since)
        waited = self.taken_ns - since if 0 < since <= self.taken_ns else None
        claims = [(row.claim[i].cell, row.claim[i].ticket) for i in range(row.claims)]
        claims = [(cell, ticket) for cell, ticket in claims if cell < self.words.extent.cells]
        guarded = any(self._is_guard(cell) for cell, _ in claims)
        claims = [(cell, ticket) for cell, ticket in claims if not self._is_guard(cell)]
        queued = self.objects.wanted(row.index, row.generation)
        innermost = row.wanted - 1 if row.wanted - 1 in queued and not guarded else None
        if waited is not None and innermost is not None:
            self.waited[row.index, innermost] = waited
        vcpu = VCpu(
            index=row.index,
            pid=row.pid,
            tid=row.tid,
            alive=bool(row.alive),
            process=person.process,
            command=person.command,
            state=person.state,
            cpu=person.cpu,
            holds=(*holds, *self.objects.held(row.index, row.generation)),
            waits_for=self._waits_for(claims, queued, innermost),
            waited_ns=waited if not guarded else None,
            parked=bool(row.parked),
            changing=bool(row.changing),
            foreign=foreign,
        )
        self.vcpus[vcpu.index] = vcpu
        self.generations[vcpu.index] = row.generation
        for number, (cell, ticket) in enumerate(claims):
            last = number == len(claims) - 1 and innermost is None and not guarded
            self.claims.setdefault(cell, []).append(_Claim(vcpu, _ticket(ticket), waited if last else None))

    def _is_guard(self, index: int) -> bool:
        """Whoever waits for one does so for its object, or for nothing that takes long."""
        cell = self.cells.get(index)
        return cell is not None and bool(cell.flags & lib.PLK_CELL_SYNC)

    def _waits_for(
        self, claims: list[tuple[int, int]], queued: list[int], innermost: int | None
    ) -> tuple[tuple[int, int | None], ...]:
        """As VCpu has it."""
        locks = [self._wanted(cell, ticket) for cell, ticket in claims]
        objects: list[tuple[int, int | None]] = [(index, None) for index in queued]
        return (*locks, *objects) if innermost is not None else (*objects, *locks)

    def _queue(self, index: int) -> list[Waiter]:
        """Who has a ticket of the cell that is not yet used, in order, then who is just taking one."""
        cell = self.cells[index]
        inside = cell.owner_vcpu if cell.owned else None
        claims = [c for c in self.claims.get(index, ()) if c.vcpu.index != inside]
        known = sorted(
            (c for c in claims if c.ticket is not None and cell.head <= c.ticket < cell.tail),
            key=lambda c: c.ticket or 0,
        )
        taking = [c for c in claims if c.ticket is None]
        return [Waiter(c.vcpu, c.ticket, c.waited_ns) for c in known + taking]

    def _lock(self, index: int) -> Lock:
        cell = self.cells[index]
        bounded = bool(cell.flags & lib.PLK_CELL_BOUNDED)
        owner = self.vcpus.get(cell.owner_vcpu) if cell.owned else None
        waiters = self._queue(index)
        queued = max(0, cell.tail - cell.head - 1)
        tombs, changing = self.tombs.get(index, 0), bool(cell.changing)
        queue = self.cells.get(index + 1) if bounded else None
        if queue is not None and queue.flags & lib.PLK_CELL_QUEUE:
            behind, standby = self._behind(index + 1, owner, waiters)
            waiters += behind
            queued += max(0, queue.tail - queue.head - (0 if standby else 1))
            tombs, changing = tombs + self.tombs.get(index + 1, 0), changing or bool(queue.changing)
        return Lock(
            index=index,
            name=self.names.get(index),
            policy="bounded" if bounded else "fifo",
            head=cell.head,
            tail=cell.tail,
            owner=Holder(owner, cell.head, None) if owner is not None else None,
            waiters=tuple(waiters),
            queued=max(queued, len(waiters)),
            owner_died=bool(cell.flags & lib.PLK_CELL_OWNER_DIED),
            tombstones=tombs,
            changing=changing,
        )

    def _behind(self, index: int, owner: VCpu | None, ahead: list[Waiter]) -> tuple[list[Waiter], bool]:
        """Those in the queue of a bounded lock, and whether its holder, who comes next, is among them.

        It is not if it has a ticket of the gate already.  Tickets of the queue are not the lock's.
        """
        cell = self.cells[index]
        seen = {waiter.vcpu.index for waiter in ahead} | ({owner.index} if owner is not None else set())
        first = self.vcpus.get(cell.owner_vcpu) if cell.owned else None
        standby = first is not None and first.index not in seen
        behind = [Waiter(first, None, first.waited_ns)] if first is not None and standby else []
        seen |= {waiter.vcpu.index for waiter in behind}
        behind += [w for w in self._queue(index) if w.vcpu.index not in seen]
        return [Waiter(w.vcpu, None, w.waited_ns) for w in behind], standby

    def at(self, place: Place) -> Snapshot:
        """The look, with what the file system says of the segment."""
        found, extent, status = self.words.found, self.words.extent, self.status
        uid = bytes(found.uid).hex()
        unlinked = status.st_nlink == 0
        alive = any(vcpu.alive for vcpu in self.vcpus.values())
        attached = alive or bool(place.pids) or flocked(status.st_dev, status.st_ino)
        created = found.created_ns / 1e9
        service = self.vcpus.get(extent.service - 1) if extent.service else None
        objects = self._told_objects()
        decides = service is not None and service.alive and self.taken_ns < extent.policy_until
        return Snapshot(
            label=place.name if place.name is not None else f"@{uid[:8]}",
            name=place.name,
            path=place.path,
            uid=uid,
            owner=status.st_uid,
            mode=stat.S_IMODE(status.st_mode),
            size=status.st_size,
            memory=status.st_blocks * 512,
            abi=found.abi,
            protocol=PROTOCOL_NAMES[found.protocol],
            barrier=BARRIER_NAMES[found.barrier],
            slow_path=ffi.string(found.slow_path).decode("ascii", "replace"),
            array=bool(found.array),
            vcpu_limit=found.vcpus,
            lock_limit=found.cells,
            creator_pid=found.creator_pid,
            created=created,
            age_s=max(0.0, time.time() - created),
            unlinked=unlinked,
            abandoned=not attached,
            service=extent.service - 1 if extent.service else None,
            service_spin_ns=extent.policy_spin - 1 if decides and extent.policy_spin else None,
            service_preemption=policy.told(extent.policy_trust) if decides else None,
            taken_ns=self.taken_ns,
            locks=tuple(
                self._lock(index)
                for index in sorted(self.cells)
                if not self.cells[index].flags & (lib.PLK_CELL_QUEUE | lib.PLK_CELL_SYNC)
            ),
            objects=objects,
            omitted=self.omitted,
            vcpus=tuple(self.vcpus.values()),
        )


def _ticket(ticket: int) -> int | None:
    return None if ticket == _NO_TICKET else ticket
