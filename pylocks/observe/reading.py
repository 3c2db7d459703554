"""The words of a segment, read as a file: in blocks, twice, and only where it has been written.

Nothing is mapped.  A read of a hole costs no memory, and one behind the end of a file that was cut
is a short read, not a fault.  What the words mean is known to the C half alone (csrc/hv/copy.h).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from pylocks import errors, segment
from pylocks._core import ffi, lib

if TYPE_CHECKING:
    from pylocks._core import CData

__all__ = ["Cell", "Words"]

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
        stride, start = self.extent.stride, self.extent.off_cells
        return [self._bytes(start + first * stride, len(data)) for first, data in blocks]

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

    def cell_rows(self, first: int, before: bytes, now: bytes, busy: bool) -> list[Cell]:
        """The cells that were used at some time, or the busy ones alone."""
        count = len(now) // self.extent.stride
        rows = ffi.new("struct plk_cell_row[]", count)
        pick = lib.PLK_PICK_BUSY if busy else lib.PLK_PICK_USED
        found = lib.plk_copied_cells(
            _whole(before), _whole(now), first, count, self.extent.stride, pick, rows
        )
        return [
            Cell(r.index, r.flags, r.head, r.tail, r.owned, r.owner_vcpu, r.changing)
            for r in (rows[i] for i in range(found))
        ]

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


def _whole(data: bytes) -> CData:
    return ffi.from_buffer(data)
