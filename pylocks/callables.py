"""Locks as plain C functions: for numba, ctypes, cffi and whatever else can call an address.

    import numba
    from pylocks.callables import acquire, release

    @numba.njit(nogil=True)
    def add(lock, total, n):                    # add(lock.address, array, n)
        error = acquire(lock)
        if error < 0:
            return error
        total[0] += n
        return release(lock)

Each function is a ctypes function with its types declared, which numba takes as it is. In Python, too, it
can be called: without the GIL, as any ctypes function. addresses has them as numbers.

What is returned:

    0       entered, or left
    1       entered, but a thread died while it held the lock: mark_consistent() when all is in order
    < 0     not; a negated errno, by which pylocks.h means, and Python would raise:

    -EPERM           this thread does not hold the lock (NotOwnerError)
    -EDEADLK         it holds it already, and would wait for itself (AlreadyOwnerError)
    -ELOOP           it would, through others; where the domain detects deadlocks (DeadlockError)
    -EBUSY           try_acquire: somebody holds it
    -ETIMEDOUT       acquire_for: its turn did not come in time; else: a process that is stopped keeps the
                     domain's mutex (DomainError)
    -ESHUTDOWN       the domain was closed in this process (ClosedError)
    -EINVAL          an array has no lock of that index (IndexError)
    -EUSERS          all vCPU slots are taken (DomainFullError)
    -ENOSPC, -ENOMEM no memory left for the segment, or for this thread (DomainFullError, MemoryError)
    -ENOTRECOVERABLE the domain's mutex was overwritten (CorruptDomainError)

A lock belongs to the thread that acquired it, by whatever means: what one of these took, lock.release() can
give back, and the other way round. on_owner_death and check_order are of Python's own methods: here a death
is always the 1.

Signals do not end a wait: Python's handlers run when the code returns to Python, which acquire_for in a loop
lets it do.

Who calls acquire or acquire_for with the GIL (numba without nogil=True, ctypes.PyDLL) gives it up while it
waits: the holder may be a thread of the same process that needs it.

The address is not checked: a wrong number, or that of a lock whose object has been collected, crashes the
process.
"""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import CFUNCTYPE, c_double, c_int, c_int64, c_uint64
from types import MappingProxyType

from pylocks import _lock

__all__ = [
    "acquire",
    "acquire_at",
    "acquire_for",
    "acquire_for_at",
    "addresses",
    "mark_consistent",
    "mark_consistent_at",
    "release",
    "release_at",
    "try_acquire",
    "try_acquire_at",
]

addresses: Mapping[str, int] = MappingProxyType(_lock.callables())
"""Name -> address of each function, in this process and those forked from it."""

_of_lock = CFUNCTYPE(c_int, c_uint64)
_of_lock_for = CFUNCTYPE(c_int, c_uint64, c_double)
_of_element = CFUNCTYPE(c_int, c_uint64, c_int64)
_of_element_for = CFUNCTYPE(c_int, c_uint64, c_int64, c_double)

acquire = _of_lock(addresses["acquire"])
"""int acquire(uintptr_t lock): take the lock, waiting as long as it takes; lock is TicketLock.address."""
acquire_for = _of_lock_for(addresses["acquire_for"])
"""int acquire_for(uintptr_t lock, double seconds): the same, giving up after that time."""
try_acquire = _of_lock(addresses["try_acquire"])
"""int try_acquire(uintptr_t lock): take it if it is free."""
release = _of_lock(addresses["release"])
"""int release(uintptr_t lock): give it to the next in line."""
mark_consistent = _of_lock(addresses["mark_consistent"])
"""int mark_consistent(uintptr_t lock): what it protects is in order again; by its holder."""
acquire_at = _of_element(addresses["acquire_at"])
"""int acquire_at(uintptr_t array, int64_t index): of a LockArray; array is LockArray.address."""
acquire_for_at = _of_element_for(addresses["acquire_for_at"])
"""int acquire_for_at(uintptr_t array, int64_t index, double seconds)"""
try_acquire_at = _of_element(addresses["try_acquire_at"])
"""int try_acquire_at(uintptr_t array, int64_t index)"""
release_at = _of_element(addresses["release_at"])
"""int release_at(uintptr_t array, int64_t index)"""
mark_consistent_at = _of_element(addresses["mark_consistent_at"])
"""int mark_consistent_at(uintptr_t array, int64_t index)"""
