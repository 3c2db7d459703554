"""Threads at once in what the GIL would keep apart; on any build, on free-threaded ones in earnest.

The others' tests of threads hold there, too; these are of first uses, shared handles and closing.
"""

from __future__ import annotations

import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import run

import pylocks
from pylocks.errors import ClosedError, DomainBusyError

FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
THREADS = 4


@pytest.fixture(autouse=True)
def _hasty() -> Iterator[None]:
    """Where there is a GIL, it changes hands often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def at_once(work: Callable[[int], object]) -> list[object]:
    """What `work` returns in each of some threads that begin together."""
    gate = threading.Barrier(THREADS)

    def begin(number: int) -> object:
        gate.wait()
        return work(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(begin, range(THREADS)))


def test_a_shared_handle_excludes() -> None:
    total = 0
    for policy in ("fifo", "bounded"):
        lock = pylocks.TicketLock(policy=policy)
        count = [0]

        def add(_: int, lock: pylocks.TicketLock = lock, count: list[int] = count) -> None:
            for _ in range(200):
                with lock:
                    seen = count[0]
                    lock.locked()  # time for others to come in between
                    count[0] = seen + 1

        at_once(add)
        total += count[0]
        assert not lock.locked()
    assert total == 2 * THREADS * 200


def test_the_default_domain_is_made_once() -> None:
    done = run.python(
        "-c",
        "import pylocks, test_free_threading as t\n"
        "print(len(set(t.at_once(lambda _: pylocks.TicketLock().domain.uid))))",
    )
    assert done.check() == "1\n"


def test_a_name_is_given_once(name: str) -> None:
    """One Domain object, one cell, one class of handles, whoever asks."""
    for index in range(10):
        domains = at_once(lambda _: pylocks.Domain(name, check_order=True))
        assert len(set(map(id, domains))) == 1
        (domain,) = set(domains)
        assert isinstance(domain, pylocks.Domain)
        locks = at_once(lambda n, d=domain, i=index: d.lock(f"lock {i}.{n % 2}"))
        assert len({(type(lock), lock.index) for lock in locks}) == 2
        del locks
        domain.close()
    domain.unlink()


def test_handles_come_and_go() -> None:
    def churn(_: int) -> set[int]:
        seen = set()
        for _ in range(100):
            with pylocks.TicketLock() as lock:
                seen.add(lock is True)
        return seen

    assert at_once(churn) == [{True}] * THREADS


def test_closing_beside_acquisitions() -> None:
    """Either the close or the acquisition is refused; who acquires can release."""
    for _ in range(20):
        domain = pylocks.Domain()
        lock = pylocks.TicketLock(domain=domain)

        def close(domain: pylocks.Domain = domain) -> str:
            while True:
                try:
                    domain.close()
                except DomainBusyError:
                    time.sleep(0)
                    continue
                return "closed"

        def use(lock: pylocks.TicketLock = lock) -> str:
            for _ in range(50):  # and no more: while they are at it, the domain may be busy all the time
                try:
                    lock.acquire()
                except ClosedError:
                    break
                lock.release()
            return "used"

        said = at_once(lambda n, close=close, use=use: close() if n == 0 else use())
        assert said == ["closed", *["used"] * (THREADS - 1)]
        with pytest.raises(ClosedError):
            lock.locked()


def test_one_array_for_all() -> None:
    locks, counts = pylocks.LockArray(8), [0] * 8

    def add(number: int) -> None:
        for i in range(400):
            index = (i + number) % 8
            locks.acquire(index)
            counts[index] += 1
            locks.release(index)

    at_once(add)
    assert sum(counts) == THREADS * 400


@pytest.mark.skipif(not FREE_THREADED, reason="needs a free-threaded build of Python")
def test_our_types_do_not_bring_the_gil_back() -> None:
    """Neither half; what posix_ipc does, which pylocks imports after them, is its own affair."""
    script = (
        "import sys, warnings\n"
        "warnings.simplefilter('error')\n"
        "sys.modules['posix_ipc'] = None\n"
        "try: import pylocks\n"
        "except ImportError: pass\n"
        "print(sys._is_gil_enabled(), {'pylocks._core', 'pylocks._lock'} <= set(sys.modules))"
    )
    environment = {name: value for name, value in run.settings().items() if name != "PYTHON_GIL"}
    assert run.python("-c", script, environment=environment).check() == "False True\n"
