"""Looking at machine code: portraits of a patched process, ELF files, third-party extensions.

What a process has patched cannot be undone, so whatever is looked at runs in a process of its own
(run()); that process draws its portrait() and prints it.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import shlex
import shutil
import struct
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import capstone  # type: ignore[import-untyped]
import capstone.x86  # type: ignore[import-untyped]

import pylocks
from pylocks.ops import Op

TESTS = Path(__file__).resolve().parent
THIRD_PARTY = TESTS / "thirdparty"
SITE = 6
"""Bytes of a patch site."""
NOP6 = bytes.fromhex("660f1f440000")
PLACES = ("", "entered", "left")
"""enum plk_place"""


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without its PYLOCKS_ settings, with these and the tests' modules."""
    found = {name: value for name, value in os.environ.items() if not name.startswith("PYLOCKS_")}
    path = [str(TESTS), *filter(None, [found.get("PYTHONPATH")])]
    return {**found, "PYTHONPATH": os.pathsep.join(path), **settings}


def run(
    code: str, *, fails: bool = False, folder: Path | None = None, settings: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python code in a fresh process with these PYLOCKS_ settings; it must succeed unless `fails`.

    It can import the tests' own modules, and extensions in `folder`.
    """
    variables = environment(**(settings or {}))
    if folder is not None:
        variables["PYTHONPATH"] = os.pathsep.join([str(folder), variables["PYTHONPATH"]])
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode != 0) == fails, f"exit status {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


# ------------------------------------------------------------------ ELF files


@dataclass(frozen=True)
class Symbol:
    """A function of an ELF file."""

    name: str
    address: int
    size: int


@dataclass(frozen=True)
class Elf:
    """As much of a 64-bit little-endian ELF file as is needed to read its machine code."""

    data: bytes
    sections: dict[str, tuple[int, int, int]]
    """name -> (address, file offset, size)"""
    functions: tuple[Symbol, ...]

    @classmethod
    @lru_cache(maxsize=32)
    def read(cls, path: str) -> Elf:
        data = Path(path).read_bytes()
        assert data[:6] == b"\x7fELF\x02\x01", f"{path} is not a 64-bit little-endian ELF file"
        (at,) = struct.unpack_from("<Q", data, 0x28)
        size, count, names = struct.unpack_from("<HHH", data, 0x3A)
        headers = [struct.unpack_from("<IIQQQQIIQQ", data, at + i * size) for i in range(count)]

        def text(table: int, offset: int) -> str:
            start = headers[table][4] + offset
            return data[start : data.index(b"\0", start)].decode()

        functions = []
        for header in headers:
            if header[1] != 2:  # SHT_SYMTAB
                continue
            for start in range(header[4], header[4] + header[5], 24):
                name, info, _, section, address, length = struct.unpack_from("<IBBHQQ", data, start)
                if info & 15 == 2 and section != 0:  # STT_FUNC, defined
                    functions.append(Symbol(text(header[6], name), address, length))
        sections = {text(names, h[0]): (h[3], h[4], h[5]) for h in headers}
        return cls(data, sections, tuple(sorted(functions, key=lambda f: f.address)))

    def section(self, name: str) -> bytes:
        _, offset, size = self.sections.get(name, (0, 0, 0))
        return self.data[offset : offset + size]

    def code(self, address: int, size: int) -> bytes:
        """Bytes of .text."""
        start, offset, length = self.sections[".text"]
        assert start <= address and address + size <= start + length
        return self.data[offset + address - start :][:size]

    def site_records(self) -> list[tuple[int, int, int]]:
        """(address, op, length) of each record in the section plk_sites."""
        start = self.sections.get("plk_sites", (0, 0, 0))[0]
        records = struct.iter_unpack("<iBBxx", self.section("plk_sites"))
        return [(start + 8 * i + offset, op, length & 15) for i, (offset, op, length) in enumerate(records)]

    def points(self) -> dict[int, str]:
        """Address -> "entered" or "left" of each site of lock_event in the uncontended path."""
        start = self.sections.get("plk_sites", (0, 0, 0))[0]
        records = struct.iter_unpack("<iBBxx", self.section("plk_sites"))
        places = {start + 8 * i + offset: length >> 4 for i, (offset, _, length) in enumerate(records)}
        return {at: PLACES[place] for at, place in places.items() if place}

    def function_at(self, address: int) -> Symbol:
        """The function that covers the address; the cold half of a split one goes by the whole one's name."""
        return next(f for f in self.functions if f.address <= address < f.address + f.size)

    def halves(self, function: Symbol) -> list[Symbol]:
        """The function and, where the compiler split it, its other half."""
        whole = function.name.removesuffix(".cold")
        return [
            f
            for f in self.functions
            if f == function or (f.name in (whole, whole + ".cold") and f.name != function.name)
        ]


@lru_cache(maxsize=1)
def disassembler() -> Any:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    engine.detail = True
    return engine


def instructions(code: bytes, address: int) -> list[Any]:
    """All instructions of a stretch of code, which must decode to its end."""
    found = list(disassembler().disasm(code, address))
    assert sum(i.size for i in found) == len(code), f"undecodable code at {address:#x}"
    return found


def below_the_stack_pointer(elf: Elf, function: Symbol) -> list[str]:
    """Instructions of the function that use memory below the stack pointer, the red zone.

    Found: operands with a negative offset from rsp; and, in a function with a frame pointer, those
    further below it than the function ever moves rsp.
    """
    found = []
    depth = 0  # how far below rbp rsp is moved at most
    framed: list[tuple[int, str]] = []
    has_frame = False
    for half in elf.halves(function):
        for i in instructions(elf.code(half.address, half.size), half.address):
            if (i.mnemonic, i.op_str) == ("mov", "rbp, rsp"):
                has_frame, depth = True, 0
            elif i.mnemonic == "push" and has_frame:
                depth += 8
            elif i.mnemonic == "sub" and i.op_str.startswith("rsp, ") and has_frame:
                depth += max(0, i.operands[1].imm)  # in the epilogue, less than 0 for the same reason
            elif i.mnemonic == "add" and i.op_str.startswith("rsp, ") and has_frame:
                depth += max(0, -i.operands[1].imm)  # 128 bytes are one byte shorter this way
            for operand in i.operands:
                if operand.type != capstone.x86.X86_OP_MEM or operand.mem.disp >= 0:
                    continue
                base = i.reg_name(operand.mem.base) if operand.mem.base else ""
                if base == "rsp":
                    found.append(f"{half.name}: {i.mnemonic} {i.op_str}")
                elif base == "rbp":
                    framed.append((-operand.mem.disp, f"{half.name}: {i.mnemonic} {i.op_str}"))
    return found + [text for offset, text in framed if has_frame and offset > depth]


STACK_MOVES = ("push", "pop", "call", "ret", "leave", "enter", "endbr64")


def stack_switches(elf: Elf, function: Symbol) -> list[str]:
    """Instructions that load rsp with something else than an adjustment of itself.

    A compiler writes prologues and epilogues with push, pop, leave, and adds constants to rsp (or
    leaves through rbp); a site must never make it load rsp from anywhere but where it has just put it.
    """
    found = []
    for half in elf.halves(function):
        same: set[str] = set()  # registers that hold what rsp holds
        for i in instructions(elf.code(half.address, half.size), half.address):
            if i.mnemonic in STACK_MOVES or not i.operands:
                same.clear()
                continue
            first, last = i.operands[0], i.operands[-1]
            if first.type != capstone.x86.X86_OP_REG:
                continue
            target = i.reg_name(first.reg)
            source = i.reg_name(last.reg) if last.type == capstone.x86.X86_OP_REG else ""
            if target != "rsp":
                same.discard(target)
                if (i.mnemonic, source) == ("mov", "rsp"):
                    same.add(target)
                continue
            if i.mnemonic == "mov" and source in same:  # back to itself
                continue
            same.clear()
            adjusts = i.mnemonic in ("add", "sub", "and") and last.type == capstone.x86.X86_OP_IMM
            restores = i.mnemonic == "lea" and i.reg_name(last.mem.base) in ("rbp", "rsp")
            compares = i.mnemonic in ("cmp", "test")
            if not (adjusts or restores or compares):
                found.append(f"{half.name}: {i.mnemonic} {i.op_str}")
    return found


# ---------------------------------------------------------- live processes


@dataclass(frozen=True)
class Text:
    """The executable part of one loaded module."""

    module: str
    path: str
    base: int
    """Where address 0 of the file lies."""
    start: int
    code: bytes

    def at(self, address: int, size: int = SITE) -> bytes:
        return self.code[address - self.start :][:size]

    def symbol(self, address: int) -> str:
        """Name of the function at a live address of this module."""
        return Elf.read(self.path).function_at(address - self.base).name

    def file_code(self) -> bytes:
        """The same stretch, as it is in the file."""
        data = Elf.read(self.path).data
        at, count = struct.unpack_from("<Q", data, 0x20)[0], struct.unpack_from("<H", data, 0x38)[0]
        for i in range(count):
            kind, flags, offset, address, _, size = struct.unpack_from("<IIQQQQ", data, at + 56 * i)
            begins = self.base + address
            if kind == 1 and flags & 1 and begins // 4096 * 4096 <= self.start < begins + size:
                return data[offset - (begins - self.start) :][: len(self.code)]
        raise AssertionError(f"{self.path} has no executable segment")


@dataclass(frozen=True)
class Row(Op):
    """One row of pylocks.ops(), and the table slot that the site as compiled calls through."""

    slot: int | None
    """Address of the slot; None: not a call."""
    target: int | None
    """What the slot holds."""

    @property
    def is_point(self) -> bool:
        """In the uncontended path: compiled as a nop."""
        return self.op == "lock_event" and self.before == NOP6


@dataclass(frozen=True)
class Portrait:
    rows: tuple[Row, ...]
    texts: dict[str, Text]
    said: Any
    """What the process wanted to tell besides."""

    def of(self, op: str) -> list[Row]:
        return [row for row in self.rows if row.op == op]

    def text_of(self, address: int) -> Text:
        return next(t for t in self.texts.values() if t.start <= address < t.start + len(t.code))


def mappings() -> list[tuple[int, int, str, str]]:
    """(start, end, permissions, path) of this process."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(maxsplit=5)
        start, end = (int(field, 16) for field in fields[0].split("-"))
        found.append((start, end, fields[1], fields[5] if len(fields) > 5 else ""))
    return found


def writable_and_executable() -> list[str]:
    """Mappings of this process that are both."""
    return [path or f"{start:#x}" for start, _, flags, path in mappings() if "w" in flags and "x" in flags]


def portrait(said: Any = None, extra: Sequence[str] = ()) -> str:
    """The patch table of this process and the text of its modules, as JSON for read_portrait()."""
    rows = []
    for op in pylocks.ops():
        row = {**asdict(op), "before": op.before.hex(), "after": op.after.hex(), "slot": None, "target": None}
        if op.before[:2] == b"\xff\x15":
            slot = op.address + SITE + struct.unpack("<i", op.before[2:])[0]
            row.update(slot=slot, target=ctypes.c_uint64.from_address(slot).value)
        rows.append(row)
    texts = []
    for name in ("pylocks._core", "pylocks._lock", *extra):
        path = os.path.realpath(str(importlib.import_module(name).__file__))
        mine = [m for m in mappings() if m[3] == path]
        start, end, _, _ = next(m for m in mine if "x" in m[2])
        texts.append(
            {"module": name, "path": path, "base": mine[0][0], "start": start,
             "code": ctypes.string_at(start, end - start).hex()}
        )  # fmt: skip
    return json.dumps({"rows": rows, "texts": texts, "said": said})


def read_portrait(text: str) -> Portrait:
    raw = json.loads(text.splitlines()[-1])
    rows = [
        Row(**{**row, "before": bytes.fromhex(row["before"]), "after": bytes.fromhex(row["after"])})
        for row in raw["rows"]
    ]
    texts = [Text(**{**text, "code": bytes.fromhex(text["code"])}) for text in raw["texts"]]
    return Portrait(tuple(rows), {text.module: text for text in texts}, raw["said"])


# ------------------------------------------------------- building extensions


def compiler() -> list[str]:
    """The C compiler's command."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")


def have(tool: str) -> bool:
    return shutil.which(tool) is not None


def compile_c(
    sources: Sequence[Path],
    target: Path,
    *flags: str,
    command: Sequence[str] | None = None,
    include: str | None = None,
    python: bool = True,
) -> subprocess.CompletedProcess[str]:
    """Compile C files against the public headers; the caller looks at the exit status."""
    own = ["-I", sysconfig.get_path("include")] if python else []
    return subprocess.run(
        [*(command or compiler()), "-fPIC", *flags, "-I", include or pylocks.get_include(), *own,
         *map(str, sources), "-o", str(target)],
        capture_output=True, text=True,
    )  # fmt: skip


WARNINGS = ("-Wall", "-Wextra", "-Werror")


def build(
    name: str, sources: Sequence[str], folder: Path, *flags: str,
    command: Sequence[str] | None = None, include: str | None = None,
) -> Path:  # fmt: skip
    """Build the extension module `name` from files in tests/thirdparty into the folder."""
    target = folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    done = compile_c(
        [THIRD_PARTY / source for source in sources], target, "-shared", "-O2", *WARNINGS, *flags,
        command=command, include=include,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return target
