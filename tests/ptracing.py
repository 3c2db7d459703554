"""Stopping a process between two instructions (ptrace).

A Party is a process with a ticket lock that can be made to stop just before its next access to
shared memory, while others run.  Whatever order of accesses a schedule asks for is forced, not
hoped for.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import platform
import re
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import capstone.x86  # type: ignore[import-untyped]
from patching import disassembler, environment
from words import Words

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


@dataclass(frozen=True)
class Access:
    """An access to shared memory that is about to happen."""

    region: str
    offset: int
    written: bool
    text: str


@dataclass(frozen=True)
class Step:
    """One instruction that was executed."""

    rip: int
    instruction: Instruction
    addresses: tuple[tuple[int, bool], ...]
    """(address, written) of each operand in memory."""


@dataclass
class Futex:
    """One futex system call: of what kind, and its result."""

    operation: int
    result: int


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


COMMANDS = """
import json, os, sys
import pylocks, pylocks.segment, stepping
pylocks.segment.TOMBSTONES = int(os.environ["STAGE_TOMBSTONES"])
domain = pylocks.Domain(sys.argv[1])
def bind(name):
    return stepping.bind(domain.address, domain.lock(name).index)
def define(code):
    exec(code, globals())
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(eval(json.loads(line))), flush=True)
"""


class Party:
    """A process that does with a ticket lock what it is told, step by step if need be."""

    def __init__(self, extension: Path, domain: str, cpu: int | None = None, **settings: str) -> None:
        code = COMMANDS
        if cpu is not None:
            code = f"import os; os.sched_setaffinity(0, {{{cpu}}})\n" + code
        env = environment(LD_BIND_NOW="1", **settings)  # no resolver between a call and its function
        env["PYTHONPATH"] = os.pathsep.join([str(extension.parent), env["PYTHONPATH"]])
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, domain], env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self.tracee: Tracee | None = None
        self.words: Words | None = None
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the process under test ended: {self.process.wait()}"
        return line.strip()

    def send(self, expression: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(expression) + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """The value of the expression last sent, as soon as there is one."""
        return json.loads(self._line())

    def ask(self, expression: str) -> Any:
        """Evaluate the expression there, untraced."""
        self.send(expression)
        return self.answer()

    def define(self, code: str) -> None:
        """Execute statements there."""
        self.ask(f"define({code!r})")

    def busy(self) -> bool:
        """It has not answered yet."""
        assert self.process.stdout is not None
        return not select.select([self.process.stdout], [], [], 0)[0]

    def asleep(self) -> bool:
        """In an interruptible sleep."""
        text = Path(f"/proc/{self.process.pid}/stat").read_text()
        return text.rpartition(")")[2].split()[0] == "S"

    def parked(self, words: Words) -> bool:
        """It sleeps on an event channel, or is just about to."""
        return words.u32(words.vcpu(words.vcpu_of(self.process.pid), "channel")) != 0 and self.asleep()

    def trace(self, words: Words) -> None:
        """Be ready to stop it; what lies in `words` is the shared memory."""
        self.words = words
        self.tracee = Tracee(self.process)
        self.segment = next(
            start for start, _, path in self.mappings() if path.endswith(self.path_of_segment())
        )
        self.futexes: list[Futex] = []
        mine = ("/_core.", "/_lock.", "/stepping.")
        self.own_code = [(a, b) for a, b, path in self.mappings() if any(name in path for name in mine)]
        # The C library's syscall(), through which the core calls futex(2).
        library = [(a, path) for a, _, path in self.mappings() if "/libc.so" in path or "/libc-" in path]
        here = ctypes.cast(libc.syscall, ctypes.c_void_p).value or 0
        base = next(a for a, b, path in map_of(os.getpid()) if path == library[0][1])
        self.syscall = library[0][0] + here - base

    def is_foreign(self, rip: int) -> bool:
        """At a function of somebody else, which touches nothing of a domain and does not sleep."""
        if any(start <= rip < end for start, end in self.own_code):
            return False
        return not self.syscall <= rip < self.syscall + 64

    def path_of_segment(self) -> str:
        arguments = self.process.args
        assert isinstance(arguments, list)
        return f"/pylocks.{arguments[-1]}"

    def mappings(self) -> list[tuple[int, int, str]]:
        return map_of(self.process.pid)

    @property
    def _traced(self) -> Tracee:
        assert self.tracee is not None
        return self.tracee

    # A traced operation: begin(), any number of pass_() and sleep_or_end(), end().

    def begin(self, operation: str) -> None:
        """Let it start `stepping.OPERATION` and stop at its first instruction."""
        self.start(f"(stepping.traps(1), stepping.{operation}, stepping.traps(0))[1]")

    def start(self, expression: str) -> None:
        """Let it evaluate the expression and stop at the first breakpoint."""
        self.futexes = []
        self.ended = False
        self.began = time.monotonic()
        self.send(expression)
        assert self._traced.wait() == signal.SIGTRAP

    def next_access(self, matters: Callable[[Access], bool]) -> Access | None:
        """Stop just before its next access that matters, or before it sleeps; None: it ended."""
        tracee, words = self._traced, self.words
        assert words is not None
        while not self.ended:
            registers = tracee.registers()
            instruction = tracee.instruction(registers["rip"])
            if instruction.is_trap:
                tracee.step()
                self.ended = True
                return None
            if instruction.is_syscall and registers["rax"] == SYS_FUTEX:
                wait = registers["rsi"] & 0x7F == FUTEX_WAIT_BITSET
                offset = registers["rdi"] - self.segment
                return Access("futex", offset, not wait, "futex wait" if wait else "futex wake")
            if self.is_foreign(registers["rip"]):
                tracee.return_from(registers)
                continue
            for address, written in self.addresses(registers, instruction):
                offset = address - self.segment
                if 0 <= offset < words.geometry["size"]:
                    access = Access(words.region(offset), offset, written, instruction.text)
                    if matters(access):
                        return access
            tracee.step()
        return None

    def pass_accesses(self, count: int, matters: Callable[[Access], bool]) -> list[Access]:
        """Execute `count` accesses that matter and stop before the next; those that were passed.

        Ends early where the operation does, or falls asleep.
        """
        passed: list[Access] = []
        while (access := self.next_access(matters)) is not None and len(passed) < count:
            passed.append(access)
            if access.region == "futex" and not access.written:
                self.sleep_or_end()
                return passed
            self._traced.step()
        return passed

    def trail(self) -> list[Step]:
        """Execute the operation to its end, instruction by instruction, and say what they were."""
        tracee = self._traced
        steps: list[Step] = []
        while True:
            registers = tracee.registers()
            instruction = tracee.instruction(registers["rip"])
            if instruction.is_trap:
                tracee.step()
                self.ended = True
                return steps
            steps.append(Step(registers["rip"], instruction, tuple(self.addresses(registers, instruction))))
            tracee.step()

    def addresses(self, registers: dict[str, int], instruction: Instruction) -> Iterator[tuple[int, bool]]:
        """(address, written) of each operand in memory."""
        for base, index, scale, displacement, written in instruction.operands:
            if base == "rip":
                address = registers["rip"] + instruction.size + displacement
            else:
                address = displacement + registers.get(base, 0) + registers.get(index, 0) * scale
            yield address & 2**64 - 1, written

    def sleep_or_end(self) -> bool:
        """Run until the operation has ended (True) or sleeps on its event channel."""
        tracee = self._traced
        while not self.ended:
            if not tracee.running:
                tracee.resume(PTRACE_SYSCALL)
            stop = None
            while stop is None:
                stop = tracee.wait(block=False)
                if stop is None and tracee.in_syscall and self.asleep():
                    return False
                if stop is None:
                    os.sched_yield()
            self._stopped(stop)
        return True

    def _stopped(self, stop: int) -> None:
        tracee = self._traced
        registers = tracee.registers()
        if stop == SYSCALL_STOP:
            tracee.in_syscall = not tracee.in_syscall
            if registers["orig_rax"] == SYS_FUTEX and not tracee.in_syscall:
                result = ctypes.c_int64(registers["rax"]).value
                self.futexes.append(Futex(registers["rsi"] & 0x7F, result))
        else:
            assert stop == signal.SIGTRAP and registers["rip"] != 0, f"stopped by signal {stop}"
            before = tracee.instruction(registers["rip"] - 1)
            assert before.is_trap, "stopped, but not by a breakpoint"
            self.ended = True

    def end(self) -> Any:
        """Let the operation end, however long it sleeps, and return its result."""
        tracee = self._traced
        while not self.ended:
            if not tracee.running:
                tracee.resume(PTRACE_SYSCALL)
            stop = tracee.wait()
            assert stop is not None
            self._stopped(stop)
        tracee.resume(PTRACE_CONT)
        return self.answer()

    @property
    def overslept(self) -> bool:
        """A futex wait of the operation ended because its time was over, not by a kick."""
        return any(f.operation == FUTEX_WAIT_BITSET and f.result == -errno.ETIMEDOUT for f in self.futexes)

    def kill(self) -> None:
        """End it as it stands, with SIGKILL."""
        self.process.kill()
        while self.process.returncode is None:
            _, status = os.waitpid(self.process.pid, WALL)
            if not os.WIFSTOPPED(status):
                self.process.returncode = os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        if self.tracee is not None:
            self.tracee.close()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        if self.process.returncode is None:
            self.kill()
