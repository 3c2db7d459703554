"""The words of a domain in shared memory, read and written from outside of all who use it."""

from __future__ import annotations

import mmap
import struct
from pathlib import Path

GEOMETRY = [
    "vcpus", "channels", "tombs", "entries", "cells", "stride", "off_channels", "off_tombs", "off_entries",
    "off_vcpus", "off_cells", "off_syncs", "off_nodes", "off_tallies", "off_rings", "size",
]  # fmt: skip


class Words:
    """The words of a domain's segment, read and written from outside of all processes that use it."""

    def __init__(self, path: Path, layout: dict[str, int]) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self.layout = layout
        self.geometry: dict[str, int] = {
            name: struct.unpack_from(
                "<Q" if name.startswith(("off_", "size")) else "<I",
                self._map, layout["header.geometry"] + layout[f"geometry.{name}"],
            )[0]
            for name in GEOMETRY
        }  # fmt: skip

    def close(self) -> None:
        self._map.close()

    def u32(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self._map, offset)[0])

    def u64(self, offset: int) -> int:
        return int(struct.unpack_from("<Q", self._map, offset)[0])

    def put32(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self._map, offset, value)

    def put64(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self._map, offset, value)

    def cell(self, index: int, name: str) -> int:
        """Offset of a word of the cell."""
        return self.geometry["off_cells"] + index * self.geometry["stride"] + self.layout[f"cell.{name}"]

    def read(self, index: int) -> dict[str, int]:
        """The words of a cell."""
        wide = {name: self.u64(self.cell(index, name)) for name in ("tail", "head", "owner")}
        narrow = {name: self.u32(self.cell(index, name)) for name in ("slow", "flags")}
        return {**wide, **narrow}

    def vcpu(self, index: int, name: str) -> int:
        """Offset of a word of the vCPU."""
        return self.geometry["off_vcpus"] + index * self.layout["vcpu"] + self.layout[f"vcpu.{name}"]

    @staticmethod
    def mix(lock: int, ticket: int) -> int:
        """The hash that spreads (cell index + 1, ticket) over channels and tombstones."""
        mask = 2**64 - 1
        x = (lock * 0x9E3779B97F4A7C15 + ticket) & mask
        x ^= x >> 33
        x = x * 0xFF51AFD7ED558CCD & mask
        x ^= x >> 33
        x = x * 0xC4CEB9FE1A85EC53 & mask
        return x ^ (x >> 33)

    def channel(self, index: int, ticket: int) -> tuple[int, int]:
        """(offset of the event channel, bit) of a ticket of the cell."""
        x = self.mix(index + 1, ticket)
        at = x & (self.geometry["channels"] - 1)
        return self.geometry["off_channels"] + at * self.layout["channel"], 1 << (x >> 59)

    def tomb_slots(self, index: int, ticket: int) -> list[int]:
        """Offsets of the places in which a tombstone of the ticket may stand, in order."""
        x = self.mix(index + 1, ticket & (1 << 36) - 1)
        places = [x + probe * (x >> 32 | 1) for probe in range(self.layout["tomb_window"])]
        return [self.geometry["off_tombs"] + (at & (self.geometry["tombs"] - 1)) * 8 for at in places]

    def tombs(self) -> int:
        """Tombstones standing, counted."""
        start = self.geometry["off_tombs"]
        return sum(self.u64(start + 8 * i) != 0 for i in range(self.geometry["tombs"]))

    @property
    def tombs_live(self) -> int:
        return self.u32(self.layout["header.tombs_live"])

    def vcpu_of(self, tid: int) -> int:
        """Index of the vCPU that the thread is."""
        return next(i for i in range(self.geometry["vcpus"]) if self.u32(self.vcpu(i, "tid")) == tid)

    def region(self, offset: int) -> str:
        """Which part of the segment: as in layout.h."""
        found = "header"
        for part in ("channels", "tombs", "entries", "vcpus", "cells", "syncs", "nodes", "tallies", "rings"):
            if offset >= self.geometry[f"off_{part}"]:
                found = part
        return found
