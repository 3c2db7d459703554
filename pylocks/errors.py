"""What can go wrong, each with its own class; every message says what, where and what to do."""

from __future__ import annotations

import errno
import os
import sys
import threading
import warnings
from typing import TYPE_CHECKING

from pylocks._core import lib

if TYPE_CHECKING:
    from pylocks.barrier import Barrier
    from pylocks.deadlocks import Cycle
    from pylocks.domain import Domain

__all__ = [
    "AbiMismatchError",
    "AlreadyOwnerError",
    "BarrierDeathError",
    "ClosedError",
    "CorruptDomainError",
    "DeadlockError",
    "DomainBusyError",
    "DomainError",
    "DomainFullError",
    "DomainGoneError",
    "DomainPermissionError",
    "ForeignFileError",
    "HypervisorError",
    "LockOrderWarning",
    "MonitorError",
    "MonitorPermissionError",
    "NotOwnerError",
    "OwnerDiedError",
    "OwnerDiedWarning",
    "ProtocolMismatchError",
    "PylocksError",
    "StaleDomainError",
    "TruncatedDomainError",
    "UnknownDomainError",
    "UnknownLockError",
    "UnknownOpError",
    "WrongKindError",
]


class PylocksError(Exception):
    """Base of all errors that pylocks raises of its own accord."""


class OwnerDiedWarning(UserWarning):
    """A process died while it held a lock: what the lock protects may be half-done."""


class LockOrderWarning(UserWarning):
    """Two locks are taken in one order here and in the other one there: some day both will wait for ever."""


class DomainError(PylocksError):
    """A domain (a shared segment) can't be created, attached or used."""


class ForeignFileError(DomainError):
    """What lies under the domain's name is not a pylocks segment; it is left as it is."""


class TruncatedDomainError(DomainError):
    """The segment is not as long as its header says."""


class CorruptDomainError(DomainError):
    """The segment's header contradicts itself, or an index in it points nowhere."""


class AbiMismatchError(DomainError):
    """The segment has the layout of another pylocks version, or of another C library."""


class ProtocolMismatchError(DomainError):
    """The domain and this process differ in how an unlocker behaves (native, enlightened)."""


class StaleDomainError(DomainError):
    """The segment is from before the machine's last start."""


class DomainPermissionError(DomainError, PermissionError):
    """The segment belongs to another user, or its mode is not the one expected."""


class UnknownDomainError(DomainError, FileNotFoundError):
    """No domain has that name, and none was to be created."""


class DomainFullError(DomainError):
    """No room: vCPU slots, lock cells, names, or memory for the segment."""


class DomainBusyError(DomainError):
    """The domain can't be closed: a thread of this process holds or waits for a lock of it."""


class DomainGoneError(DomainError):
    """A lock was unpickled where its domain can no longer be reached."""


class ClosedError(DomainError, ValueError):
    """The domain was closed in this process."""


class UnknownLockError(PylocksError, LookupError):
    """The domain has no lock of that name, or it has been freed."""


class BarrierDeathError(PylocksError, threading.BrokenBarrierError):
    """A Barrier is broken because a thread died that waited at it or ran its action; the message names it."""


class WrongKindError(PylocksError, ValueError):
    """What has that name in the domain is of another kind: a Semaphore, say, and not a TicketLock."""


class UnknownOpError(PylocksError, ValueError):
    """PYLOCKS_OPS, PYLOCKS_PATCH or PYLOCKS_PROTOCOL asks for what does not exist or can't be."""


class HypervisorError(PylocksError):
    """A Hypervisor can't serve: the domain has one already, or its process has failed."""


class MonitorError(PylocksError):
    """A PreemptionMonitor can't do its work here."""


class MonitorPermissionError(MonitorError, PermissionError):
    """A PreemptionMonitor lacks a privilege, which the message names."""


class NotOwnerError(PylocksError, RuntimeError):
    """release() by a thread that does not hold the lock."""


class OwnerDiedError(PylocksError, RuntimeError):
    """A thread died while it held the lock, and the lock refuses until somebody has repaired."""


class AlreadyOwnerError(PylocksError, RuntimeError):
    """acquire() by the thread that holds the lock, or that a signal handler interrupted waiting for it."""


class DeadlockError(PylocksError, RuntimeError):
    """acquire() would wait for ever, for threads that wait for this one; the lock is not held.

    Raised in one of the threads, where Domain(detect_deadlocks=True).  cycle: all of them, this one first.
    """

    def __init__(self, message: str, cycle: Cycle | None = None) -> None:
        super().__init__(message)
        self.cycle = cycle


# One for each acquisition, and not for each line of code that acquires: every death is another one.
# At the end of the list, so that any filter of the program's own comes first.
warnings.simplefilter("always", OwnerDiedWarning, append=True)
warnings.simplefilter("always", LockOrderWarning, append=True)  # once a pair as it is


def owner_died(domain: Domain, index: int, refuse: bool) -> None:
    """Tell who has just acquired the lock that a thread died inside; OwnerDiedError if refused."""
    where = f"lock {domain.describe_lock(index)} of {domain.describe()}"
    text = f"a thread died while it held {where}: what it protects may be half-done"
    if refuse:
        raise OwnerDiedError(f"{text}. Enter with `with lock.repair():` and put it in order.")
    warnings.warn(f"{text}. Put it in order and call mark_consistent().", OwnerDiedWarning, stacklevel=2)


def callers_level() -> int:
    """The stacklevel, for our caller's warning, of the first frame outside this package."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("pylocks."):
        level, frame = level + 1, frame.f_back
    return level


def mutex_owner_died(domain: Domain, index: int) -> None:
    """Tell who has just acquired a lock that any thread may release of its former holder's death."""
    warnings.warn(
        f"a thread died while it held lock {domain.describe_lock(index)} of {domain.describe()}: "
        "what it protects may be half-done",
        OwnerDiedWarning,
        stacklevel=callers_level(),
    )


def writer_died(domain: Domain, index: int) -> None:
    """Tell who has just entered an RWLock that a writer died inside."""
    warnings.warn(
        f"a thread died while it wrote under RWLock {domain.describe_lock(index)} of {domain.describe()}: "
        "what that protects may be half-done. Put it in order as its writer and call mark_consistent().",
        OwnerDiedWarning,
        stacklevel=2,
    )


def broken_barrier(barrier: Barrier, victim: int) -> threading.BrokenBarrierError:
    """What a wait raises; victim: whose death broke the barrier, pid << 32 | tid, or 0."""
    if victim and barrier.broken:
        return BarrierDeathError(
            f"{barrier}: thread {victim & 0xFFFFFFFF} of process {victim >> 32} died at it"
        )
    return threading.BrokenBarrierError(f"{barrier}: broken or reset during the wait")


def lock_error(code: int, domain: Domain, index: int) -> Exception:
    """The exception for a refusal of the core (an errno) on lock `index` of the domain."""
    where = f"lock {domain.describe_lock(index)} of {domain.describe()}"
    if code == errno.EMEDIUMTYPE:
        from pylocks.sync import kind_at

        kind = kind_at(domain, index)
        what = f"{'an' if kind[0] in 'AEIOUaeiou' else 'a'} {kind}"
        return WrongKindError(f"{where} is {what}: open it as what it is, or take another name")
    if code == errno.ENOBUFS:
        return DomainFullError(f"{where}: this thread holds or waits for as many objects as it can, 32")
    if code == errno.EALREADY:
        return AlreadyOwnerError(
            f"{where}: this thread is inside already, and would wait for itself: a reader can't become the "
            "writer, nor a writer a reader, without leaving first"
        )
    if code == errno.EPERM and not domain.closed:
        return NotOwnerError(
            f"{where} is not held by this thread; {domain.describe_holder(index)}. "
            "Only the thread that acquired it can release it."
        )
    if code == errno.EDEADLK:
        return AlreadyOwnerError(
            f"{where} is already held by this thread, or waited for by a frame that a signal handler "
            "interrupted: the thread would wait for itself. Where a "
            "holder is to acquire again, use a TicketRLock."
        )
    if code == errno.ELOOP:
        from pylocks.deadlocks.graph import error_found

        return error_found(domain, where)
    if code in (errno.ESHUTDOWN, errno.EPERM):
        return ClosedError(f"{where} can't be used: the domain was closed in this process")
    if code == errno.EUSERS:
        return DomainFullError(
            f"{where}: all {domain.vcpu_limit} vCPU slots are taken; "
            "create the domain with more: Domain(..., vcpus=N)"
        )
    if code == errno.ENOSPC:
        return DomainFullError(
            f"{where}: no memory is left for the segment; free some in /dev/shm or raise its limit"
        )
    if code == errno.ETIMEDOUT:
        return DomainError(
            f"{where}: the domain's mutex has been held for seconds by a process that is stopped or "
            "debugged; let that one go on, or kill it"
        )
    if code == errno.ENOTRECOVERABLE:
        return CorruptDomainError(f"{where}: the domain's mutex was overwritten; remove the domain")
    if code == errno.EPROTONOSUPPORT:
        return ProtocolMismatchError(
            f"{where} is a bounded one, made under the enlightened unlock protocol; this process uses the "
            "native one, under which nobody is ever woken"
        )
    if code == errno.ENOENT:
        return UnknownLockError(
            f"{domain.describe()} has no lock {index}: that is the queue of a bounded one"
        )
    if code == lib.PLK_E_CORRUPT:
        return CorruptDomainError(f"{where} is said to be a bounded one, and has no queue")
    return OSError(code, f"{os.strerror(code)}: {where}")
