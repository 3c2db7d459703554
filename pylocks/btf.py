"""What the running kernel says of its own types (BTF): just enough to load the monitor's program."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from pylocks.errors import MonitorError

__all__ = ["VMLINUX", "Types"]

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_MAGIC = 0xEB9F
_HEADER = struct.Struct("=HBBIIIII")
_TYPE = struct.Struct("=III")
"""Name, kind and count, size or type."""
_INT, _ARRAY, STRUCT, UNION, _ENUM = 1, 3, 4, 5, 6
TYPEDEF = 8
_PROTOTYPE, _VARIABLE, _SECTION, _DECL_TAG, _ENUM64 = 13, 14, 15, 17, 19
_BEHIND = {_INT: 4, _ARRAY: 12, _VARIABLE: 4, _DECL_TAG: 4}
"""Bytes behind a type of that kind."""
_BEHIND_EACH = {STRUCT: 12, UNION: 12, _ENUM: 8, _PROTOTYPE: 8, _SECTION: 12, _ENUM64: 12}
"""Bytes behind it for each of its members, values or parameters."""


@dataclass(frozen=True)
class _Type:
    kind: int
    name: int
    count: int
    wide: bool
    """Of a struct: the upper 8 bits of its members' offsets are the width of a bit field."""
    members: int
    """Where what lies behind it begins."""


class Types:
    """The types of one kernel; MonitorError if the file is not there or not what it should be."""

    def __init__(self, path: Path = VMLINUX) -> None:
        self.path = path
        try:
            self._data = path.read_bytes()
        except OSError as error:
            raise MonitorError(
                f"{path} can't be read ({error.strerror}): the monitor needs a kernel that describes its "
                "types (CONFIG_DEBUG_INFO_BTF)"
            ) from None
        try:
            self._read()
        except struct.error:
            raise self._broken() from None

    def _broken(self) -> MonitorError:
        return MonitorError(f"{self.path} is not a kernel's type information as this pylocks knows it")

    def _read(self) -> None:
        magic, _, _, header, types, length, strings, _ = _HEADER.unpack_from(self._data)
        if magic != _MAGIC:
            raise self._broken()
        self._strings = header + strings
        self._at: list[int] = [0]
        """Where the type of each number lies; 0 is void."""
        at, end = header + types, header + types + length
        while at < end:
            self._at.append(at)
            _, info, _ = _TYPE.unpack_from(self._data, at)
            kind = info >> 24 & 0x1F
            at += _TYPE.size + _BEHIND.get(kind, 0) + _BEHIND_EACH.get(kind, 0) * (info & 0xFFFF)

    def _type(self, number: int) -> _Type:
        if not 0 < number < len(self._at):
            raise self._broken()
        at = self._at[number]
        name, info, _ = _TYPE.unpack_from(self._data, at)
        return _Type(info >> 24 & 0x1F, name, info & 0xFFFF, bool(info >> 31), at + _TYPE.size)

    def _name(self, offset: int) -> bytes:
        begin = self._strings + offset
        return self._data[begin : self._data.find(b"\0", begin)]

    def find(self, kind: int, name: str) -> int:
        """The number of the type of that kind and name."""
        wanted = name.encode()
        for number in range(1, len(self._at)):
            offset, info, _ = _TYPE.unpack_from(self._data, self._at[number])
            if info >> 24 & 0x1F == kind and self._name(offset) == wanted:
                return number
        raise MonitorError(
            f"{self.path} does not know {name}: this kernel is too old or was built without it"
        )

    def offset(self, structure: str, member: str) -> int:
        """Where the struct has that member, in bytes."""
        found = self._member(self.find(STRUCT, structure), member.encode(), 4)
        if found is None:
            raise MonitorError(f"{self.path}: struct {structure} has no {member}")
        return found

    def _member(self, number: int, wanted: bytes, depth: int) -> int | None:
        """Through so many anonymous members, in which a kernel that shuffles its structs has them."""
        outer = self._type(number)
        if outer.kind not in (STRUCT, UNION) or depth == 0:
            return None
        for index in range(outer.count):
            name, inner, bits = _TYPE.unpack_from(self._data, outer.members + index * _TYPE.size)
            begins = int(bits & 0xFFFFFF if outer.wide else bits) // 8
            within = self._member(inner, wanted, depth - 1) if name == 0 else None
            if within is not None:
                return begins + within
            if self._name(name) == wanted:
                return begins
        return None
