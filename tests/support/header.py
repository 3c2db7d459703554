"""The header of a segment as csrc/include/pylocks/layout.h describes it, for tests that damage it."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any, ClassVar

u32, u64 = ctypes.c_uint32, ctypes.c_uint64

MAGIC, FORMATTING = b"pylocks1", b"pylocks0"
OWNER_DIED = 0x40000000


class Geometry(ctypes.Structure):
    """struct plk_geometry"""

    _fields_: ClassVar[list[Any]] = [
        *((name, u32) for name in ("vcpus", "channels", "tombs", "entries", "cells", "stride")),
        *((name, u32) for name in ("tallied", "rings", "syncs", "noded")),
        *((f"off_{name}", u64) for name in ("channels", "tombs", "entries", "vcpus", "cells")),
        *((f"off_{name}", u64) for name in ("syncs", "nodes", "tallies", "rings")),
        ("size", u64),
    ]


class Header(ctypes.Structure):
    """struct plk_header"""

    _fields_: ClassVar[list[Any]] = [
        ("magic", ctypes.c_char * 8),
        *((name, u32) for name in ("abi", "header_size", "cell_size", "vcpu_size", "entry_size")),
        *((name, u32) for name in ("mutex_size", "life_offset", "protocol", "array", "barrier")),
        ("geometry", Geometry),
        ("uid", ctypes.c_ubyte * 16),
        ("boot", ctypes.c_ubyte * 16),
        ("creator_pid", ctypes.c_int64),
        ("created_ns", u64),
        ("slow_path", ctypes.c_char * 16),
        ("guard", u32 * 16),
        *((name, u32) for name in ("cells_next", "cells_free", "vcpus_next", "entries_next")),
        ("tombs_live", u32),
        ("tombs_version", u32),
        ("service_vcpu", u64),
        ("looked_ns", u64),
        ("detects", u64),
        ("doorbell", u32),
        ("service_looks", u32),
        ("spare2", u64 * 10),
    ]


class Entry(ctypes.Structure):
    """struct plk_entry"""

    _fields_: ClassVar[list[Any]] = [
        *((name, u32) for name in ("state", "hash", "cell", "length")),
        ("name", ctypes.c_char * 100),
        ("spare", u32 * 3),
    ]


class Cell(ctypes.Structure):
    """struct plk_cell"""

    _fields_: ClassVar[list[Any]] = [
        *((name, u64) for name in ("tail", "head", "owner")),
        ("slow", u32),
        ("flags", u32),
    ]


def read(path: Path) -> Header:
    """The header of a segment."""
    return Header.from_buffer_copy(path.read_bytes()[: ctypes.sizeof(Header)])


def place(field: str, *index: int) -> tuple[int, int]:
    """(offset, size) of "abi", "geometry.cells" or, with an index, of an element such as of "guard"."""
    at = 0
    kind: Any = Header
    for part in field.split("."):
        at += getattr(kind, part).offset
        kind = {name: each for name, each, *_ in kind._fields_}[part]
    for i in index:
        kind = kind._type_
        at += i * ctypes.sizeof(kind)
    return at, ctypes.sizeof(kind)


def write(path: Path, value: int, field: str, *index: int) -> None:
    """Overwrite a field, little end first; the file keeps its length."""
    at, size = place(field, *index)
    poke(path, at, value.to_bytes(size, "little"))


def poke(path: Path, at: int, data: bytes) -> None:
    """Overwrite bytes of a file."""
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(data)


def cell_at(path: Path, index: int) -> int:
    """Offset of a cell."""
    geometry = read(path).geometry
    return int(geometry.off_cells + index * geometry.stride)


def entry_at(path: Path, index: int) -> int:
    """Offset of an entry of the directory."""
    return int(read(path).geometry.off_entries + index * ctypes.sizeof(Entry))
