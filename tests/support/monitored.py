"""Users of their own for tests of the monitor, and threads of theirs that run or don't.

A monitor is a user's, so each test has a user that nobody else on the machine is.  Only root can act
as another user: `missing()` says what this process lacks.
"""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pylocks import btf
from pylocks._core import lib
from support.wait import until

_numbers = itertools.count()
AS_SAME_CPU = "as same_cpu"  # what the reason says where no monitor is believed
_NEEDED = {"CAP_SETUID": 7, "CAP_PERFMON": 38, "CAP_BPF": 39}


def missing() -> str:
    """Why no monitor can run here; "" if one must be able to."""
    if os.geteuid() != 0:
        return "only root can act as other users"
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    lacking = [name for name, bit in _NEEDED.items() if not effective >> bit & 1]
    if lacking:
        return f"this process lacks {', '.join(lacking)}"
    if os.stat("/proc/self/ns/pid").st_ino != lib.PLK_FIRST_PID_NS:
        return "in a pid namespace"
    if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
        return "in a user namespace"
    if not btf.VMLINUX.exists():
        return "this kernel does not describe its types"
    lockdown = Path("/sys/kernel/security/lockdown")
    return "this kernel is locked down" if lockdown.exists() and "[none]" not in lockdown.read_text() else ""


def new_user() -> int:
    """A user id that no other test has."""
    return 1_000_000_000 + os.getpid() * 64 + next(_numbers) % 64


def become(user: int) -> None:
    """For good."""
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)


def act_as(user: int) -> None:
    """Look for monitors as that user; with root still at hand, to kill its processes."""
    os.seteuid(user)


@contextmanager
def as_root() -> Iterator[None]:
    """For a moment, where that is at hand: who acts as a user may neither become another nor end it."""
    before = os.geteuid()
    if os.getuid() == 0:
        os.seteuid(0)
    try:
        yield
    finally:
        os.seteuid(before)


@contextmanager
def thread_of(user: int, work: Callable[[], object], cpu: int | None = None) -> Iterator[int]:
    """A process of that user, which works until the end of the block; its pid."""
    parent = os.getpid()
    readable, writable = os.pipe()
    with as_root():
        pid = os.fork()
    if pid == 0:
        try:
            if cpu is not None:
                os.sched_setaffinity(0, {cpu})
            if os.getuid() == 0:
                os.seteuid(0)
            os.setresuid(user, user, user)
            lib.plk_probe_die_with(parent)
            os.write(writable, b"x")  # not before it is the user's: only then it is marked
            work()
        finally:
            os._exit(0)
    os.close(writable)
    try:
        with open(readable, "rb") as said:
            assert said.read(1) == b"x", "it could not become that user"
        yield pid
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it has ended"
    finally:
        with as_root():
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def spin() -> None:
    """Use a CPU for as long as there is one."""
    while True:
        pass


def rest() -> None:
    """Do nothing, asleep."""
    signal.pause()


def find() -> None:
    """Until this process has the marks of its user's monitor."""
    until(lambda: lib.plk_monitor_look() == lib.PLK_MONITOR_SEEN, "the monitor to be found")


def is_out(tid: int) -> None:
    """Until the thread is marked."""
    until(lambda: lib.plk_thread_out(tid) == 1, f"thread {tid} to be marked")


def is_in(tid: int) -> None:
    """Until its mark is gone."""
    until(lambda: lib.plk_thread_out(tid) == 0, f"thread {tid} to lose its mark")
