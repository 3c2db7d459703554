"""A forked child that stops at each of its system calls, there to be killed, overtaken or refused."""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

from ptracing import PTRACE_CONT, PTRACE_POKEUSER, PTRACE_SYSCALL, REGISTERS, SYSCALL_STOP, Tracee, ptrace

CALLS = {
    2: "open", 3: "close", 5: "fstat", 8: "lseek", 9: "mmap", 11: "munmap", 17: "pread", 18: "pwrite",
    28: "madvise", 72: "fcntl", 73: "flock", 77: "ftruncate", 87: "unlink", 91: "fchmod", 202: "futex",
    257: "open", 262: "fstat", 285: "fallocate", 318: "getrandom", 319: "memfd_create", 324: "membarrier",
}  # fmt: skip
"""Of x86-64."""


class Stopped:
    """Runs the function in a child, from one system call to the next; a context manager.

    What the function returned (or how it failed) is `outcome`, once step() says that it has ended; the
    child then lives on, with all that it has attached, until the block is left.
    """

    outcome: tuple[str, Any]
    _before_call = False

    def __init__(self, function: Callable[[], Any]) -> None:
        self._go, go = os.pipe()[::-1]
        answer, theirs = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            os.close(answer)
            _child(function, go, theirs)
        os.close(go)
        os.close(theirs)
        self._answer = answer
        self._process = SimpleNamespace(pid=self.pid, returncode=None)
        self._tracee: Tracee | None = Tracee(self._process)  # type: ignore[arg-type]

    def __enter__(self) -> Stopped:
        os.write(self._go, b"x")
        assert self._stop() == signal.SIGTRAP
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        os.close(self._go)
        os.close(self._answer)

    def _stop(self) -> int | None:
        assert self._tracee is not None
        return self._tracee.wait()

    def step(self) -> str | None:
        """Go on to just before the next system call: its name; None: the function has ended."""
        if self._before_call:
            self.perform()
        assert self._tracee is not None
        self._tracee.resume(PTRACE_SYSCALL)
        stop = self._stop()
        if stop == signal.SIGTRAP:
            self._finish()
            return None
        assert stop == SYSCALL_STOP, f"stopped by signal {stop}"
        self._before_call = True
        number = self._tracee.registers()["orig_rax"]
        return CALLS.get(number, str(number))

    def perform(self) -> None:
        """Let the call happen."""
        assert self._tracee is not None and self._before_call
        self._before_call = False
        self._tracee.resume(PTRACE_SYSCALL)
        assert self._stop() == SYSCALL_STOP

    def refuse(self, code: int) -> None:
        """The call fails with that errno, and does not happen."""
        self._poke("orig_rax", ctypes.c_ulong(-1).value)
        self.perform()
        self._poke("rax", ctypes.c_ulong(-code).value)

    def run(self) -> None:
        """Let the function end."""
        while self.step() is not None:
            pass

    def run_freely(self) -> None:
        """Go on without stopping; ended() tells when it is done."""
        if self._before_call:
            self.perform()
        assert self._tracee is not None
        self._tracee.resume(PTRACE_CONT)

    def ended(self, patience: float) -> bool:
        """After run_freely(): the function has ended, or does within so many seconds."""
        assert self._tracee is not None
        deadline = time.monotonic() + patience
        while (stop := self._tracee.wait(block=False)) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.0005)
        assert stop == signal.SIGTRAP, f"stopped by signal {stop}"
        self._finish()
        return True

    def _poke(self, register: str, value: int) -> None:
        ptrace(PTRACE_POKEUSER, self.pid, 8 * REGISTERS.index(register), value)

    def _finish(self) -> None:
        assert self._tracee is not None
        self._tracee.resume(PTRACE_CONT)
        with open(self._answer, "rb", closefd=False) as pipe:
            self.outcome = pickle.load(pipe)

    def kill(self) -> None:
        """SIGKILL, and gone."""
        if self._tracee is None:
            return
        self._tracee.close()
        self._tracee = None
        if self._process.returncode is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def _child(function: Callable[[], Any], go: int, answer: int) -> None:
    kept: Any = None
    try:
        os.read(go, 1)
        os.kill(os.getpid(), signal.SIGTRAP)
        try:
            kept = function()
            outcome = ("", kept if isinstance(kept, (bytes, str, bool)) else repr(kept))
        except BaseException as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            outcome = (type(error).__name__, f"{error} [{os.path.basename(frame.filename)}:{frame.lineno}]")
        os.kill(os.getpid(), signal.SIGTRAP)
        os.write(answer, pickle.dumps(outcome))
        os.read(go, 1)
    finally:
        os._exit(0)


def at_each_call(function: Callable[[], Any], most: int = 400) -> Iterator[tuple[int, str, Stopped]]:
    """(number, name, child stopped before it) of each system call of the function, a new child for each."""
    for number in range(most):
        with Stopped(function) as child:
            for _ in range(number):
                if child.step() is None:
                    return
            name = child.step()
            if name is None:
                return
            yield number, name, child
    raise AssertionError(f"more than {most} system calls")
