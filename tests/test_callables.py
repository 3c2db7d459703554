"""pylocks.callables: locks as C functions, called through ctypes, cffi and numba."""

from __future__ import annotations

import ctypes
import errno
import gc
import importlib.util
import math
import mmap
import os
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import cffi
import pytest
from conftest import POLICIES
from support import run
from support.wait import until

import pylocks
from pylocks import callables

FUNCTIONS = [name for name in callables.__all__ if name != "addresses"]
OWNER_DIED = 1


@pytest.fixture
def domain() -> Iterator[pylocks.Domain]:
    with pylocks.Domain() as made:
        yield made


@pytest.fixture(params=POLICIES)
def lock(domain: pylocks.Domain, request: pytest.FixtureRequest) -> pylocks.TicketLock:
    return pylocks.TicketLock(domain=domain, policy=request.param)


class Pair:
    """The functions, of a lock or of an element of an array."""

    def __init__(self, lock: pylocks.TicketLock | pylocks.LockArray, index: int | None = None) -> None:
        self._where = (lock.address,) if index is None else (lock.address, index)
        self._suffix = "" if index is None else "_at"

    def __call__(self, name: str, *arguments: float) -> int:
        return int(getattr(callables, name + self._suffix)(*self._where, *arguments))


@pytest.fixture(params=["lock", "element"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == "lock":
        with pylocks.Domain() as domain:
            lock = pylocks.TicketLock(domain=domain)
            yield Pair(lock)
    else:
        array = pylocks.LockArray(5)
        yield Pair(array, 3)
        array.close()


def elsewhere(what: Callable[[], object]) -> object:
    """What it returns in another thread."""
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(what()))
    thread.start()
    thread.join()
    return found[0]


def in_child(what: Callable[[], int]) -> int:
    """What it returns in a forked process, which ends then and there."""
    child = os.fork()
    if child == 0:
        os._exit(what() & 0xFF)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


# ------------------------------------------------------------------ the table


def test_every_function_has_its_address_and_its_types() -> None:
    assert sorted(callables.addresses) == sorted(FUNCTIONS)
    for name in FUNCTIONS:
        function = getattr(callables, name)
        assert ctypes.cast(function, ctypes.c_void_p).value == callables.addresses[name]
        expected: list[object] = [ctypes.c_uint64]
        expected += [ctypes.c_int64] if name.endswith("_at") else []
        expected += [ctypes.c_double] if "_for" in name else []
        assert (function.restype, list(function.argtypes)) == (ctypes.c_int, expected), name
    assert len(set(callables.addresses.values())) == len(FUNCTIONS)


def test_an_address_is_of_the_handle_within_the_object(lock: pylocks.TicketLock) -> None:
    """struct plk_lock: cell, domain, id, policy."""
    _, domain, number, policy = struct.unpack("<QQQI", ctypes.string_at(lock.address, 28))
    assert (domain, number - 1) == (lock.domain.address, lock.index)
    assert policy == POLICIES.index(lock.policy)
    assert id(lock) < lock.address < id(lock) + type(lock).__basicsize__
    with pylocks.Domain() as other:
        assert pylocks.TicketLock(domain=other).address != lock.address
    with pytest.raises(AttributeError):
        lock.address = 0  # type: ignore[misc]


def test_a_recursive_lock_has_no_address(domain: pylocks.Domain) -> None:
    """C functions know nothing of its count."""
    lock = pylocks.TicketRLock(domain=domain)
    with pytest.raises(TypeError, match="has no address: C code needs a TicketLock"):
        lock.address  # noqa: B018


def test_an_address_of_an_array_is_its_domains() -> None:
    array = pylocks.LockArray(3)
    assert array.address == array.domain.address
    assert array[1].address != array.address
    array.close()
    assert array.address
    with pytest.raises(pylocks.ClosedError):
        array.domain.address  # noqa: B018


# --------------------------------------------------------------- what they return


def test_results(pair: Pair) -> None:
    assert pair("release") == -errno.EPERM
    assert pair("mark_consistent") == -errno.EPERM
    assert pair("acquire") == 0
    assert pair("acquire") == -errno.EDEADLK
    assert pair("try_acquire") == -errno.EBUSY
    assert pair("acquire_for", 1e-3) == -errno.EDEADLK
    for name, expected in (("try_acquire", errno.EBUSY), ("release", errno.EPERM)):
        assert elsewhere(lambda name=name: pair(name)) == -expected  # type: ignore[misc]
    for seconds in (1e-3, 0.0, -1.0, math.nan, -math.inf):
        found = elsewhere(lambda seconds=seconds: pair("acquire_for", seconds))  # type: ignore[misc]
        assert found == -errno.ETIMEDOUT, seconds
    assert pair("mark_consistent") == 0
    assert pair("release") == 0
    for seconds in (0.0, 1.0, 1e30, math.inf):
        assert pair("acquire_for", seconds) == 0
        assert pair("release") == 0
    assert pair("try_acquire") == 0
    assert pair("release") == 0


@pytest.mark.parametrize("how", ["acquire", "try_acquire", "acquire_for"])
def test_a_death_is_told_until_somebody_says_that_all_is_well(pair: Pair, how: str) -> None:
    more = (100.0,) if how == "acquire_for" else ()
    assert in_child(lambda: pair("acquire")) == 0
    for _ in range(2):
        assert pair(how, *more) == OWNER_DIED
        assert pair("release") == 0
    assert pair(how, *more) == OWNER_DIED
    assert pair("mark_consistent") == 0
    assert pair("release") == 0
    assert pair(how, *more) == 0
    assert pair("release") == 0


def test_a_closed_domain(lock: pylocks.TicketLock) -> None:
    array = pylocks.LockArray(2)
    both = (Pair(lock), Pair(array, 1))
    for each in both:
        assert each("acquire") == 0
    with pytest.raises(pylocks.DomainBusyError):
        lock.domain.close()
    for each in both:
        assert each("release") == 0
    lock.domain.close()
    array.close()
    for each in both:
        for name, more in (("acquire", ()), ("try_acquire", ()), ("acquire_for", (1.0,))):
            assert each(name, *more) == -errno.ESHUTDOWN
    assert both[0]("release") == both[0]("mark_consistent") == -errno.EPERM
    assert both[1]("release") == both[1]("mark_consistent") == -errno.ESHUTDOWN


@pytest.mark.parametrize("index", [-1, 5, 2**26, 2**32, 2**63 - 1, -(2**63)])
def test_an_index_that_an_array_does_not_have(index: int) -> None:
    array = pylocks.LockArray(5)
    nowhere = Pair(array, index)
    for name in ("acquire", "try_acquire", "release", "mark_consistent"):
        assert nowhere(name) == -errno.EINVAL
    assert nowhere("acquire_for", 1.0) == -errno.EINVAL
    array.close()


# ------------------------------------------------------------------- with others


def test_what_c_takes_python_gives_back_and_the_other_way_round(lock: pylocks.TicketLock) -> None:
    here = Pair(lock)
    assert here("acquire") == 0
    assert lock.owner is not None and lock.owner.tid == threading.get_native_id()
    lock.release()
    with lock:
        assert here("acquire") == -errno.EDEADLK
    lock.acquire()
    assert here("release") == 0
    assert not lock.locked()


def test_a_forked_child_has_the_address_and_not_the_lock(pair: Pair) -> None:
    assert pair("acquire") == 0
    assert in_child(lambda: -pair("release")) == errno.EPERM
    assert in_child(lambda: -pair("try_acquire")) == errno.EBUSY
    assert pair("release") == 0
    assert in_child(lambda: pair("acquire") or pair("release")) == 0


@pytest.mark.parametrize("prototype", [ctypes.CFUNCTYPE, ctypes.PYFUNCTYPE], ids=["without", "with"])
@pytest.mark.parametrize("name", ["acquire", "acquire_for"])
def test_who_waits_does_not_keep_the_gil(
    lock: pylocks.TicketLock, name: str, prototype: Callable[..., Callable[..., Callable[..., int]]]
) -> None:
    """ctypes gives it up around a CFUNCTYPE, and does not around a PYFUNCTYPE."""
    kinds = [ctypes.c_uint64, ctypes.c_double] if name == "acquire_for" else [ctypes.c_uint64]
    function = prototype(ctypes.c_int, *kinds)(callables.addresses[name])
    arguments = (lock.address, 1e3)[: len(kinds)]
    found = []

    def wait() -> None:
        found.append(function(*arguments))
        lock.release()

    with lock:
        threads = [threading.Thread(target=wait) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: lock.waiters == 3, "three waiters")
        assert found == []
    for thread in threads:
        thread.join()
    assert found == [0, 0, 0]


def test_a_thread_without_the_gil_is_not_taken_for_one_that_has_it() -> None:
    """Not even beside another interpreter, where PyGILState_Check says yes to everybody."""
    code = """
import threading, time, pylocks
from pylocks.callables import acquire, acquire_for, release
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
other = interpreters.create()
lock = pylocks.TicketLock()
def wait(function, *more):
    for _ in range(200):
        assert function(lock.address, *more) == 0
        assert release(lock.address) == 0
threads = [threading.Thread(target=wait, args=each) for each in 2 * [(acquire,), (acquire_for, 100.0)]]
lock.acquire()
for thread in threads: thread.start()
while lock.waiters < 4: time.sleep(0.001)
lock.release()
for thread in threads: thread.join()
interpreters.destroy(other)
print(lock.ticket)
"""
    if not any(map(importlib.util.find_spec, ("_interpreters", "_xxsubinterpreters"))):
        pytest.skip("this Python has no module for subinterpreters")
    assert run.python("-c", code).check() == "801\n"


def test_threads_and_processes_lose_no_update(pair: Pair) -> None:
    """C functions from ctypes, in two processes of two threads each."""
    count = mmap.mmap(-1, 8)

    def add(n: int = 500) -> None:
        for _ in range(n):
            assert pair("acquire") == 0
            count[:8] = struct.pack("<Q", struct.unpack("<Q", count[:8])[0] + 1)
            assert pair("release") == 0

    def both() -> int:
        thread = threading.Thread(target=add)
        thread.start()
        add()
        thread.join()
        return 0

    child = os.fork()
    if child == 0:
        os._exit(both())
    both()
    assert os.waitpid(child, 0)[1] == 0
    assert struct.unpack("<Q", count[:8])[0] == 2000
    count.close()


def test_through_cffi(lock: pylocks.TicketLock) -> None:
    ffi = cffi.FFI()
    acquire, release = (
        ffi.cast("int (*)(uintptr_t)", callables.addresses[name]) for name in ("acquire", "release")
    )
    waits = ffi.cast("int (*)(uintptr_t, double)", callables.addresses["acquire_for"])
    assert acquire(lock.address) == 0
    assert acquire(lock.address) == -errno.EDEADLK
    assert elsewhere(lambda: waits(lock.address, 1e-3)) == -errno.ETIMEDOUT
    assert release(lock.address) == 0
    assert release(lock.address) == -errno.EPERM


def test_an_object_that_is_kept_keeps_its_address(domain: pylocks.Domain) -> None:
    """The lock goes on being this one while others come and go."""
    lock = pylocks.TicketLock(domain=domain)
    index, address = lock.index, lock.address
    for _ in range(20):
        with pylocks.TicketLock(domain=domain):
            gc.collect()
    assert callables.acquire(address) == 0
    assert lock.locked() and lock.index == index
    assert callables.release(address) == 0


# ------------------------------------------------------------------------ numba

NUMBA = """
import multiprocessing, threading, time
import numba, numpy as np, pylocks
from pylocks.callables import acquire, acquire_at, acquire_for, release, release_at, try_acquire

@numba.njit(nogil=True)
def add(lock, total, n):
    for _ in range(n):
        rc = acquire(lock)
        if rc != 0:
            return rc
        total[0] += 1
        rc = release(lock)
        if rc != 0:
            return rc
    return 0

@numba.njit(nogil=True)
def add_at(locks, counts, n):
    for i in range(n):
        rc = acquire_at(locks, i % len(counts))
        if rc != 0:
            return rc
        counts[i % len(counts)] += 1
        release_at(locks, i % len(counts))
    return 0

@numba.njit
def with_the_gil(lock):
    rc = acquire(lock)
    return rc if rc != 0 else release(lock)

@numba.njit(nogil=True)
def others(lock):
    return try_acquire(lock), acquire_for(lock, 1e-3), release(lock)

def work(lock, locks, memory):
    table = np.frombuffer(memory, np.int64)
    total, counts = table[:1], table[1:]
    found = []
    jobs = 2 * [lambda: add(lock.address, total, 5000), lambda: add_at(locks.address, counts, 5000)]
    threads = [threading.Thread(target=lambda job=job: found.append(job())) for job in jobs]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert found == [0, 0, 0, 0], found

def main():
    lock, locks = pylocks.TicketLock(), pylocks.LockArray(5)
    memory = multiprocessing.RawArray("q", 6)
    add(lock.address, np.zeros(1, np.int64), 0)              # compiled before the fork
    add_at(locks.address, np.zeros(5, np.int64), 0)
    children = [
        multiprocessing.get_context(how).Process(target=work, args=(lock, locks, memory))
        for how in ("fork", "fork", "spawn")
    ]
    for child in children: child.start()
    work(lock, locks, memory)
    for child in children: child.join()
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert list(memory) == [40000] + [8000] * 5, list(memory)

    assert others(lock.address) == (0, -35, 0)               # EDEADLK
    with lock:
        threads = [threading.Thread(target=with_the_gil, args=(lock.address,)) for _ in "ab"]
        for thread in threads: thread.start()
        while lock.waiters < 2: time.sleep(0.001)            # neither keeps this thread from running
    for thread in threads: thread.join()
    assert not lock.locked()
    print("done")

if __name__ == "__main__":
    main()
"""


def test_from_numba(tmp_path: Path) -> None:
    """Without the GIL in threads, in forked and spawned processes; and with it."""
    pytest.importorskip("numba")
    (tmp_path / "count.py").write_text(NUMBA)
    assert run.python(tmp_path / "count.py").check() == "done\n"
