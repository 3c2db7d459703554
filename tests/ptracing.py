"""Stopping a process between two instructions (ptrace)."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import re
import signal
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capstone.x86  # type: ignore[import-untyped]
from patching import disassembler, environment

PTRACE_POKEUSER, PTRACE_CONT, PTRACE_SINGLESTEP, PTRACE_GETREGS = 6, 7, 9, 12
PTRACE_SYSCALL, PTRACE_SEIZE = 24, 0x4206
OPTIONS = 0x00000001 | 0x00100000  # TRACESYSGOOD, EXITKILL
SYSCALL_STOP = signal.SIGTRAP | 0x80
WALL = 0x40000000

SYS_FUTEX, SYS_MMAP, SYS_MPROTECT, SYS_PKEY_MPROTECT = 202, 9, 10, 329
FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET = 9, 10

# struct user_regs_struct
REGISTERS = [
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
]  # fmt: skip
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
libc.ptrace.restype = ctypes.c_long


def ptrace(request: int, pid: int, address: int = 0, data: Any = None) -> None:
    if libc.ptrace(request, pid, address, data) == -1:
        code = ctypes.get_errno()
        raise OSError(code, f"ptrace {request:#x}: {os.strerror(code)}")


@functools.lru_cache(maxsize=1)
def why_not() -> str:
    """Why processes can't be stepped through here; "" if they can."""
    if platform.machine() != "x86_64":
        return f"single-stepping is written for x86_64, not {platform.machine()}"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        ptrace(PTRACE_SEIZE, child.pid, 0, OPTIONS)
    except OSError as error:
        return f"ptrace of a child is not permitted here: {error}"
    finally:
        child.kill()
        child.communicate()
    return ""


# --------------------------------------------------------------- processes


@dataclass(frozen=True)
class Instruction:
    """What is known of one instruction, wherever it is met."""

    text: str
    size: int
    operands: tuple[tuple[str, str, int, int, bool], ...]
    """(base, index, scale, displacement, written) of each operand in memory."""
    is_call: bool
    is_syscall: bool
    is_trap: bool


@functools.lru_cache(maxsize=4096)
def decode(code: bytes) -> Instruction:
    i = next(disassembler().disasm(code, 0), None)
    assert i is not None, f"undecodable instruction {code.hex()}"
    operands = []
    if not i.mnemonic.startswith(("lea", "nop")):
        for operand in i.operands:
            if operand.type != capstone.x86.X86_OP_MEM or operand.mem.segment:
                continue
            memory = operand.mem
            names = [i.reg_name(r) if r else "" for r in (memory.base, memory.index)]
            written = bool(operand.access & capstone.CS_AC_WRITE)
            operands.append((names[0], names[1], memory.scale, memory.disp, written))
    text = f"{i.mnemonic} {i.op_str}".strip()
    return Instruction(
        text, i.size, tuple(operands),
        is_call=i.mnemonic in ("call", "lcall"),
        is_syscall=i.mnemonic in ("syscall", "sysenter", "int"),
        is_trap=i.mnemonic == "int3",
    )  # fmt: skip


class Tracee:
    """A child process under ptrace; one thread."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.pid = process, process.pid
        self.running = True
        self.in_syscall = False
        ptrace(PTRACE_SEIZE, self.pid, 0, OPTIONS)
        self._memory = open(f"/proc/{self.pid}/mem", "r+b", buffering=0)  # noqa: SIM115
        self._code: dict[int, bytes] = {}
        self._registers = (ctypes.c_uint64 * len(REGISTERS))()

    def close(self) -> None:
        self._memory.close()

    def resume(self, request: int, deliver: int = 0) -> None:
        ptrace(request, self.pid, 0, deliver)
        self.running = True

    def wait(self, block: bool = True) -> int | None:
        """The signal that stopped it; None: it has not stopped."""
        pid, status = os.waitpid(self.pid, WALL | (0 if block else os.WNOHANG))
        if pid == 0:
            return None
        if not os.WIFSTOPPED(status):
            self.process.returncode = os.waitstatus_to_exitcode(status)
            raise ChildProcessError(f"the process under test ended: {self.process.returncode}")
        self.running = False
        return os.WSTOPSIG(status)

    def registers(self) -> dict[str, int]:
        ptrace(PTRACE_GETREGS, self.pid, 0, ctypes.addressof(self._registers))
        return dict(zip(REGISTERS, self._registers, strict=True))

    def read(self, address: int, size: int) -> bytes:
        """Bytes of its memory."""
        self._memory.seek(address)
        return self._memory.read(size)

    def write(self, address: int, data: bytes) -> None:
        """Change its memory, read-only code as well."""
        self._memory.seek(address)
        self._memory.write(data)

    def instruction(self, rip: int) -> Instruction:
        code = self._code.get(rip)
        if code is None:
            self._code[rip] = code = self.read(rip, 16)
        return decode(code)

    def return_from(self, registers: dict[str, int]) -> None:
        """At the first instruction of a function: run until it returns."""
        (back,) = struct.unpack("<Q", self.read(registers["rsp"], 8))
        instead = self.read(back, 1)
        self.write(back, b"\xcc")
        self.resume(PTRACE_CONT)
        got = self.wait()
        self.write(back, instead)
        assert got == signal.SIGTRAP and self.registers()["rip"] == back + 1, f"stopped by signal {got}"
        ptrace(PTRACE_POKEUSER, self.pid, 8 * REGISTERS.index("rip"), back)

    def step(self) -> None:
        """Execute one instruction; of a system call, all of it."""
        self.resume(PTRACE_SINGLESTEP)
        got = self.wait()
        assert got == signal.SIGTRAP, f"stopped by signal {got} instead of a step"


def map_of(pid: int) -> list[tuple[int, int, str]]:
    """(start, end, path) of all that a process has mapped."""
    found = []
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        match = re.match(r"(\w+)-(\w+) \S+ \S+ \S+ \S+\s*(.*)", line)
        assert match is not None
        found.append((int(match[1], 16), int(match[2], 16), match[3]))
    return found


def system_calls(code: str, **settings: str) -> list[tuple[int, dict[str, int]]]:
    """Run Python code in a fresh process; (number, registers) of each system call that it makes."""
    begin = "import os, signal\nos.read(0, 1)\nos.kill(os.getpid(), signal.SIGTRAP)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", begin + code], env=environment(**settings), text=True, stdin=subprocess.PIPE
    )
    tracee = Tracee(process)
    calls: list[tuple[int, dict[str, int]]] = []
    try:
        assert process.stdin is not None
        process.stdin.write("x")
        process.stdin.close()
        assert tracee.wait() == signal.SIGTRAP
        while True:
            tracee.resume(PTRACE_SYSCALL)
            try:
                stop = tracee.wait()
            except ChildProcessError:
                assert process.returncode == 0, f"exit status {process.returncode}"
                return calls
            assert stop == SYSCALL_STOP, f"stopped by signal {stop}"
            tracee.in_syscall = not tracee.in_syscall
            if tracee.in_syscall:
                registers = tracee.registers()
                calls.append((registers["orig_rax"], registers))
    finally:
        tracee.close()
        if process.returncode is None:
            process.kill()
            process.wait()
