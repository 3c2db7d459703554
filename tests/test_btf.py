"""What pylocks reads of a kernel's description of its types."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import pytest

from pylocks import btf
from pylocks.errors import MonitorError

INT, STRUCT, UNION, TYPEDEF, FUNCTION, PROTOTYPE = 1, 4, 5, 8, 12, 13


class Description:
    """Makes such a file."""

    def __init__(self) -> None:
        self.strings = b"\0"
        self.types = b""

    def name(self, text: str) -> int:
        if not text:
            return 0
        at = len(self.strings)
        self.strings += text.encode() + b"\0"
        return at

    def add(
        self, kind: int, name: str, *members: tuple[str, int, int], wide: bool = False, tail: bytes = b""
    ) -> None:
        self.types += struct.pack("=III", self.name(name), kind << 24 | wide << 31 | len(members), 0) + tail
        for member, number, bits in members:
            self.types += struct.pack("=III", self.name(member), number, bits)

    def write(self, path: Path, magic: int = 0xEB9F) -> Path:
        header = struct.pack(
            "=HBBIIIII", magic, 1, 0, 24, 0, len(self.types), len(self.types), len(self.strings)
        )
        path.write_bytes(header + self.types + self.strings)
        return path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vmlinux"


def described() -> Description:
    """1 int, 2 prototype, 3 anonymous union, 4 anonymous struct around it, 5 task_struct, 6 typedef."""
    made = Description()
    made.add(INT, "int", tail=b"\0\0\0\x20")
    made.types += struct.pack("=III", 0, PROTOTYPE << 24 | 1, 0) + struct.pack("=II", 0, 1)
    made.add(UNION, "", ("tgid", 1, 0), ("pid", 1, 0))
    made.add(STRUCT, "", ("state", 1, 0), ("", 3, 64))
    made.add(STRUCT, "task_struct", ("flags", 1, 0), ("", 4, 128 | 3 << 24), ("name", 1, 640), wide=True)
    made.add(TYPEDEF, "btf_trace_sched_switch")
    return made


def test_a_member_is_found_through_anonymous_ones(path: Path) -> None:
    types = btf.Types(described().write(path))
    assert types.offset("task_struct", "flags") == 0
    assert types.offset("task_struct", "pid") == 16 + 8
    assert types.offset("task_struct", "name") == 80
    assert types.find(btf.TYPEDEF, "btf_trace_sched_switch") == 6


def test_what_is_not_there_is_named(path: Path) -> None:
    types = btf.Types(described().write(path))
    with pytest.raises(MonitorError, match="struct task_struct has no tid"):
        types.offset("task_struct", "tid")
    with pytest.raises(MonitorError, match="does not know btf_trace_sched_waking"):
        types.find(btf.TYPEDEF, "btf_trace_sched_waking")
    with pytest.raises(MonitorError, match="does not know task_struct"):  # of that kind
        types.find(btf.TYPEDEF, "task_struct")


def test_no_file(path: Path) -> None:
    with pytest.raises(MonitorError, match=r"can't be read.*CONFIG_DEBUG_INFO_BTF"):
        btf.Types(path)


def test_another_kind_of_file(path: Path) -> None:
    with pytest.raises(MonitorError, match="is not a kernel's type information"):
        btf.Types(described().write(path, magic=0x9FEB))


def test_a_file_cut_anywhere_is_an_error_or_says_what_it_lacks(path: Path) -> None:
    whole = described().write(path).read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with contextlib.suppress(MonitorError):
            assert btf.Types(path).offset("task_struct", "pid") == 24


def test_a_type_that_contains_itself_ends(path: Path) -> None:
    made = Description()
    made.add(STRUCT, "task_struct", ("", 1, 0), ("", 99, 0))
    with pytest.raises(MonitorError):
        btf.Types(made.write(path)).offset("task_struct", "pid")


@pytest.mark.skipif(not btf.VMLINUX.exists(), reason="this kernel does not describe its types")
def test_the_running_kernel() -> None:
    types = btf.Types()
    pid, tgid = types.offset("task_struct", "pid"), types.offset("task_struct", "tgid")
    assert pid > 0 and pid % 4 == 0 and abs(tgid - pid) == 4
