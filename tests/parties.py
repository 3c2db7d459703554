"""Processes with a ticket lock that can be stopped just before their next access to shared memory.

Others run meanwhile: whatever order of accesses a schedule asks for is forced, not hoped for.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from patching import environment
from ptracing import (
    FUTEX_WAIT_BITSET,
    PTRACE_CONT,
    PTRACE_SYSCALL,
    SYS_FUTEX,
    SYSCALL_STOP,
    WALL,
    Instruction,
    Tracee,
    libc,
    map_of,
)
from words import Words


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
