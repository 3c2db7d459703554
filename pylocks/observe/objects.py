"""Semaphores, events and their like, as a look at a domain finds them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pylocks._core import ffi, lib
from pylocks.observe.model import Insider, Outsider, SyncObject, VCpu
from pylocks.observe.reading import Cell, Node, Record, Words

__all__ = ["Objects"]

KINDS = [ffi.string(lib.plk_kind_name(number)).decode() for number in range(lib.PLK_KIND_COUNT)]
_WANTS = {"Mutex": "lock", "RMutex": "lock", "Event": "set", "Condition": "notify", "Barrier": "all"}
"""What is waited for; sides of an RWLock and permits elsewhere."""


class Objects:
    """Those of a domain, looked at between its vCPUs, as its cells are."""

    def __init__(self, words: Words, guards: list[Cell]) -> None:
        """The first look; guards: cells in the order of their indices."""
        self._words = words
        self._guards = [guard for guard in guards if guard.number < words.extent.syncs]
        self._records = words.sync_blocks([guard.number for guard in self._guards])
        self._nodes = words.node_blocks() if self._guards else []
        self.records: dict[int, Record] = {}
        self._of: dict[int, list[Node]] = {}  # object -> nodes, in order of arrival
        self._by: dict[int, list[Node]] = {}  # vCPU -> the same

    def again(self) -> None:
        """The second look."""
        if not self._guards:
            return
        records = self._words.syncs_again(self._records)
        nodes = self._words.nodes_again(self._nodes)
        found, used = self._words.objects(
            self._guards,
            list(zip(self._records, records, strict=True)),
            list(zip(self._nodes, nodes, strict=True)),
        )
        self.records = {record.number: record for record in found}
        for node in sorted(used, key=lambda node: node.arrival):
            self._of.setdefault(node.number, []).append(node)
            self._by.setdefault(node.vcpu, []).append(node)
        for record in found:
            if record.holder:  # as if its thread had a node for that
                node = Node(record.number, record.holder - 1, record.generation, 1, record.value, 0, 0, 0)
                self._of.setdefault(record.number, []).append(node)
                self._by.setdefault(record.holder - 1, []).append(node)

    def in_use(self, index: int) -> bool:
        """Somebody holds it or waits, or a thread died inside."""
        return index in self._of or bool(self.records[index].owner_died)

    def held(self, vcpu: int, generation: int) -> list[int]:
        """Indices of those that the thread holds."""
        return sorted({n.number for n in self._by.get(vcpu, ()) if n.holds and n.generation == generation})

    def wanted(self, vcpu: int, generation: int) -> list[int]:
        """Indices of those that the thread waits for; those first whose wait a handler has interrupted."""
        waits = [n for n in self._by.get(vcpu, ()) if not n.holds and n.generation == generation]
        return [node.number for node in sorted(waits, key=lambda node: not node.aside)]

    def told(
        self,
        record: Record,
        guard: Cell | None,
        name: str | None,
        who: Callable[[int, int], VCpu | None],
        waited: Mapping[tuple[int, int], int],
    ) -> SyncObject:
        """One of them.  who: which thread has a slot in that generation; waited: ns, by vCPU and object."""
        kind = KINDS[record.kind]
        known = [(node, who(node.vcpu, node.generation)) for node in self._of.get(record.number, ())]
        holders = tuple(
            Insider(vcpu, _held(kind, node), node.want if kind in _COUNTED else 1)
            for node, vcpu in known
            if node.holds and vcpu is not None
        )
        waiters = tuple(
            Outsider(
                vcpu,
                _WANTS.get(kind) or _side(kind, node),
                waited.get((vcpu.index, record.number)) if not node.aside else None,
                bool(node.aside),
            )
            for node, vcpu in known
            if not node.holds and vcpu is not None
        )
        busy = guard is None or guard.head != guard.tail
        return SyncObject(
            index=record.number,
            name=name,
            kind=kind,
            state=_state(kind, record),
            value=1 if record.mode == lib.PLK_MODE_SET else record.value,
            of=record.of if kind == "Barrier" or kind in _PERMITS else None,
            lock=record.lock - 1 if record.lock else None,
            holders=holders,
            waiters=waiters,
            owner_died=bool(record.owner_died),
            lost=bool(record.holder) and not holders,
            changing=bool(record.changing) or busy or any(node.changing for node, _ in known),
        )


_PERMITS = ("Semaphore", "BoundedSemaphore", "owned Semaphore")
_COUNTED = ("owned Semaphore", "RMutex")


def _side(kind: str, node: Node) -> str:
    if kind != "RWLock":
        return "permit"
    return "read" if node.want == lib.PLK_WANT_READ else "write"


def _held(kind: str, node: Node) -> str:
    return {"Mutex": "lock", "RMutex": "lock", "Barrier": "action"}.get(kind) or _side(kind, node)


def _state(kind: str, record: Record) -> str:
    value, of = record.value, record.of
    if kind in _PERMITS:
        return f"{value:,} of {of:,} left" if value <= of and of else f"{value:,} left"
    if kind == "Event":
        return "set" if record.mode == lib.PLK_MODE_SET else "not set"
    if kind == "Barrier":
        if record.mode == lib.PLK_MODE_BROKEN:
            return "broken"
        there = f"{value:,} of {of:,} there"
        return f"{there}, one acts" if record.mode == lib.PLK_MODE_ACTING else there
    if kind == "RWLock":
        if record.mode == lib.PLK_MODE_WRITTEN:
            return "written"
        return f"{value:,} reading" if value else "free"
    if kind == "Condition":
        return f"its lock is #{record.lock - 1}" if record.lock else "without a lock yet"
    held = f"held {value:,} times" if value > 1 else "held"
    return held if value else "free"
