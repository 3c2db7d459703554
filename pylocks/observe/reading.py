"""The words of a segment, read as a file: in blocks, twice, and only where it has been written.

Nothing is mapped.  A read of a hole costs no memory, and one behind the end of a file that was cut
is a short read, not a fault.  What the words mean is known to the C half alone (csrc/hv/copy.h,
csrc/sync/copy.h).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from pylocks import errors, segment
from pylocks._core import ffi, lib

if TYPE_CHECKING:
    from pylocks._core import CData

__all__ = ["Cell", "Node", "Record", "Words"]

_BLOCK = 1 << 20
"""Bytes of cells looked at together; a multiple of any stride."""


class Cell(NamedTuple):
    """struct plk_cell_row"""

    number: int
    flags: int
    head: int
    tail: int
    owned: int
    owner_vcpu: int
    changing: int


class Record(NamedTuple):
    """struct plk_sync_row, and its struct plk_told"""

    number: int
    kind: int
    changing: int
    mode: int
    holder: int
    generation: int
    owner_died: int
    lock: int
    value: int
    of: int


class Node(NamedTuple):
    """struct plk_node_row; its object's number"""

    number: int
    vcpu: int
    generation: int
    holds: int
    want: int
    aside: int
    changing: int
    arrival: int


class Words:
    """An open segment and where its parts lie."""

    def __init__(self, fd: int, where: str) -> None:
        """Look at the header; any DomainError that attaching would raise for it, but for its owner."""
        self.fd, self.where = fd, where
        self.found, self.extent = ffi.new("struct plk_found *"), ffi.new("struct plk_extent *")
        rc = lib.plk_extent(fd, self.extent, self.found)
        if rc != 0:
            raise segment.refusal(rc, self.found, where)

    def _bytes(self, at: int, size: int) -> bytes:
        try:
            data = os.pread(self.fd, size, at)
        except OSError as error:
            raise segment.not_opened(self.where, error) from None
        if len(data) != size:
            raise errors.TruncatedDomainError(f"{self.where} was cut while it was looked at")
        return data

    def vcpus(self) -> bytes:
        """The slots that have been used."""
        return self._bytes(self.extent.off_vcpus, self.extent.vcpus * lib.PLK_VCPU_BYTES)

    def vcpu_rows(self, before: bytes, now: bytes) -> Iterator[CData]:
        """struct plk_vcpu_row of each thread registered, to be read before the next is asked for."""
        rows = ffi.new("struct plk_vcpu_row[]", self.extent.vcpus)
        for i in range(lib.plk_copied_vcpus(_whole(before), _whole(now), self.extent.vcpus, rows)):
            yield rows[i]

    def cell_blocks(self) -> list[tuple[int, bytes]]:
        """(index of the first cell, their bytes) of each stretch that is not a hole."""
        stride = self.extent.stride
        end = self.extent.off_cells + self.extent.cells * stride
        return [
            ((at - self.extent.off_cells) // stride, self._bytes(at, size))
            for at, size in self._written(self.extent.off_cells, end)
        ]

    def again(self, blocks: list[tuple[int, bytes]]) -> list[bytes]:
        """The same cells once more."""
        return self._reread(self.extent.off_cells, self.extent.stride, blocks)

    def _reread(self, start: int, each: int, blocks: list[tuple[int, bytes]]) -> list[bytes]:
        return [self._bytes(start + first * each, len(data)) for first, data in blocks]

    def _written(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """(offset, size) of stretches of whole pages that may hold something."""
        at = start
        while at < end:
            try:
                at = max(at, os.lseek(self.fd, at, os.SEEK_DATA))
                hole = min(os.lseek(self.fd, at, os.SEEK_HOLE), end)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return  # nothing but a hole is left
                hole = end  # a file system that does not tell
            while at < hole:
                size = min(_BLOCK, hole - at)
                yield at, size
                at += size

    def guards(self, blocks: list[tuple[int, bytes]]) -> list[Cell]:
        """The cells that guard semaphores and their like, after one look."""
        found = (self.cell_rows(first, data, data, lib.PLK_PICK_GUARDS) for first, data in blocks)
        return [cell for some in found for cell in some]

    def cell_rows(self, first: int, before: bytes, now: bytes, pick: int) -> list[Cell]:
        """The cells of enum plk_pick."""
        count = len(now) // self.extent.stride
        rows = ffi.new("struct plk_cell_row[]", count)
        found = lib.plk_copied_cells(
            _whole(before), _whole(now), first, count, self.extent.stride, pick, rows
        )
        return [
            Cell(r.index, r.flags, r.head, r.tail, r.owned, r.owner_vcpu, r.changing)
            for r in (rows[i] for i in range(found))
        ]

    def sync_blocks(self, indices: Sequence[int]) -> list[tuple[int, bytes]]:
        """(index of the first record, their bytes) of stretches with those of these indices, which ascend."""
        stretches: list[tuple[int, int]] = []
        for index in indices:
            if stretches and (index - stretches[-1][0]) * lib.PLK_SYNC_BYTES < _BLOCK:
                stretches[-1] = stretches[-1][0], index
            else:
                stretches.append((index, index))
        return [
            (
                first,
                self._bytes(
                    self.extent.off_syncs + first * lib.PLK_SYNC_BYTES,
                    (last + 1 - first) * lib.PLK_SYNC_BYTES,
                ),
            )
            for first, last in stretches
        ]

    def node_blocks(self) -> list[tuple[int, bytes]]:
        """(number of the first node, their bytes) of each stretch of threads' nodes that is not a hole."""
        start, size = self.extent.off_nodes, lib.PLK_NODE_BYTES
        end = start + self.extent.noded * lib.PLK_NODES * size
        return [((at - start) // size, self._bytes(at, length)) for at, length in self._written(start, end)]

    def syncs_again(self, blocks: list[tuple[int, bytes]]) -> list[bytes]:
        """The same records once more."""
        return self._reread(self.extent.off_syncs, lib.PLK_SYNC_BYTES, blocks)

    def nodes_again(self, blocks: list[tuple[int, bytes]]) -> list[bytes]:
        """The same nodes once more."""
        return self._reread(self.extent.off_nodes, lib.PLK_NODE_BYTES, blocks)

    def objects(
        self,
        guards: Sequence[Cell],
        records: Sequence[tuple[tuple[int, bytes], bytes]],
        nodes: Sequence[tuple[tuple[int, bytes], bytes]],
    ) -> tuple[list[Record], list[Node]]:
        """What the records of these guards and the nodes say, each read twice."""
        indices = ffi.new("uint32_t[]", [guard.number for guard in guards])
        flags = ffi.new("uint32_t[]", [guard.flags for guard in guards])
        rows, known = ffi.new("struct plk_sync_row[]", len(guards)), 0
        for (first, before), now in records:
            count = len(now) // lib.PLK_SYNC_BYTES
            known += lib.plk_copied_syncs(
                _whole(before),
                _whole(now),
                first,
                count,
                indices,
                flags,
                len(guards),
                ffi.addressof(rows, known),
            )
        found = []
        for (first, before), now in nodes:
            count = len(now) // lib.PLK_NODE_BYTES
            some = ffi.new("struct plk_node_row[]", count)
            number = lib.plk_copied_nodes(_whole(before), _whole(now), first, count, rows, known, some)
            for n in (some[i] for i in range(number)):
                index = rows[n.object].index
                found.append(
                    Node(index, n.vcpu, n.generation, n.holds, n.want, n.aside, n.changing, n.arrival)
                )
        return [_record(rows[i]) for i in range(known)], found

    def names(self) -> dict[int, str]:
        """Cell index -> name."""
        count = self.extent.entries
        data = self._bytes(self.extent.off_entries, count * lib.PLK_ENTRY_BYTES)
        rows = ffi.new("struct plk_name_row[]", count)
        found = lib.plk_copied_names(_whole(data), count, self.extent.cells, rows)
        return {
            rows[i].cell: bytes(ffi.buffer(rows[i].name, rows[i].length)).decode("utf-8", "replace")
            for i in range(found)
        }

    def tombstones(self) -> dict[int, int]:
        """Cell index -> tickets of it that are abandoned."""
        if self.extent.tombs_live == 0:
            return {}
        count = self.extent.tombs
        data = self._bytes(self.extent.off_tombs, count * 8)
        cells = ffi.new("uint32_t[]", count)
        result: dict[int, int] = {}
        for i in range(lib.plk_copied_tombs(_whole(data), count, cells)):
            cell = cells[i]
            result[cell] = result.get(cell, 0) + 1
        return result


def _record(row: CData) -> Record:
    told = row.told
    return Record(
        row.index,
        row.kind,
        row.changing,
        told.mode,
        told.holder,
        told.generation,
        told.owner_died,
        told.lock,
        told.value,
        told.of,
    )


def _whole(data: bytes) -> CData:
    return ffi.from_buffer(data)
