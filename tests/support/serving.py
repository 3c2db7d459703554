"""A domain with a hypervisor, as served.py needs it: who waits, what is asked for, who is stopped.

Whoever waits here has a watchdog that is longer than any test: nobody but a kick wakes it.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

import pylocks
from pylocks._core import ffi, lib
from support.header import Cell, Header
from support.run import alive
from support.wait import PATIENCE_S, until

NEVER_NS = 3600 * 10**9
CALL_KICK = 448 // 8
"""enum plk_call, in words of a vCPU's slot."""


class Waiter:
    """A process that acquires, says so, and releases; in a thread that no signal need be looked for in."""

    def __init__(self, lock: pylocks.TicketLock) -> None:
        self._entered, writable = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            lib.plk_watchdog_set(NEVER_NS)
            warnings.simplefilter("ignore", pylocks.OwnerDiedWarning)
            thread = threading.Thread(target=self._wait, args=(lock, writable))
            thread.start()
            thread.join()
            os._exit(0)
        os.close(writable)
        until(lambda: any(v.pid == self.pid and v.parked for v in lock.domain.vcpus()), "it to sleep")

    @staticmethod
    def _wait(lock: pylocks.TicketLock, writable: int) -> None:
        with lock:
            os.write(writable, b"x")

    def entered(self, patience: float = PATIENCE_S) -> bool:
        """It has, after so many seconds at most."""
        ready, _, _ = select.select([self._entered], [], [], patience)
        return bool(ready) and os.read(self._entered, 1) == b"x"

    def end(self) -> None:
        """Gone when this returns."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@contextmanager
def waiting(lock: pylocks.TicketLock) -> Iterator[Waiter]:
    """A waiter that is asleep; none is left."""
    made = Waiter(lock)
    try:
        yield made
    finally:
        made.end()


def words(domain: pylocks.Domain) -> tuple[mmap.mmap, Header]:
    """The segment, and its header."""
    mapped = mmap.mmap(lib.plk_segment_fd(domain._segment), 0)
    return mapped, Header.from_buffer(mapped)


def cell_of(lock: pylocks.TicketLock) -> Cell:
    """The words of its cell."""
    mapped, header = words(lock.domain)
    return Cell.from_buffer(mapped, header.geometry.off_cells + lock.index * header.geometry.stride)


def asked_for(domain: pylocks.Domain) -> int:
    """The cell, + 1, that this thread has asked the service to kick."""
    mapped, header = words(domain)
    me = next(v.index for v in domain.vcpus() if v.tid == threading.get_native_id())
    view = memoryview(mapped)[header.geometry.off_vcpus + 512 * me :].cast("B")
    return int.from_bytes(view[8 * CALL_KICK : 8 * CALL_KICK + 8], "little")


def held(domain: pylocks.Domain) -> pylocks.TicketLock:
    """A lock that this thread holds."""
    lock = pylocks.TicketLock(domain=domain)
    lock.acquire()
    return lock


@contextmanager
def stopped(hypervisor: pylocks.Hypervisor) -> Iterator[int]:
    """Its process is stopped, and has nothing left to do; its pid.  Goes on at the end."""
    pid = hypervisor.pid
    assert pid is not None
    looks = lib.plk_service_looks(hypervisor.domain._segment)
    until(
        lambda: lib.plk_service_looks(hypervisor.domain._segment) - looks >= 2,
        "it to have seen what was asked",
    )
    os.kill(pid, signal.SIGSTOP)
    until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "it to stop")
    try:
        yield pid
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGCONT)


def kicks_by(domain: pylocks.Domain, pid: int) -> int:
    """Kicks that the process has sent."""
    view = ffi.new("struct plk_vcpu_view *")
    names = [ffi.string(lib.plk_event_name(event)) for event in range(lib.plk_event_count())]
    total = 0
    for vcpu in domain.vcpus():
        if vcpu.pid == pid and lib.plk_vcpu_view(domain._segment, vcpu.index, view) == 0:
            total += view.events[names.index(b"kicks")]
    return total
