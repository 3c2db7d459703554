"""What a service decides, and who goes by it: python -m support.decided SCENARIO [POLICY].

A process is patched once, so each of these has one of its own.  Honoured, by the counters: a wait that
spinning ends is a spin grant, and one that does not spin because the holder can't run is `preempted`.  In
force, by what the participants themselves ask.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil

import pylocks
from pylocks._core import ffi, lib
from pylocks.ops import process
from pylocks.service import live_segment
from support.monitored import missing
from support.puppet import Puppet
from support.wait import PATIENCE_S, until

ROUNDS = 10
LONG, LONG_NS = "10ms", 10_000_000
SHORT_S = 0.001
HOUR_NS = 3600 * 10**9
OWN = (lib.PLK_SPIN_OWN, lib.PLK_TRUST_OWN)
POLICY = sys.argv[2] if len(sys.argv) > 2 else "fifo"


def in_force(domain: pylocks.Domain) -> tuple[int, int]:
    """(ns that waiters spin, by what they tell that a holder does not run)"""
    segment = live_segment(domain)
    return lib.plk_policy_spin(segment), lib.plk_policy_trust(segment)


def keep(lock: pylocks.TicketLock) -> None:
    """Take it, and go on."""
    lock.acquire()


def give(lock: pylocks.TicketLock) -> None:
    """It was kept."""
    lock.release()


def take(lock: pylocks.TicketLock) -> None:
    """Wait, and give it back."""
    with lock:
        pass


def poll(lock: pylocks.TicketLock) -> None:
    """Wait for a moment, in vain."""
    assert not lock.acquire(timeout=SHORT_S)


def pin(lock: pylocks.TicketLock, cpu: int) -> None:
    """Run there and nowhere else."""
    os.sched_setaffinity(0, {cpu})


@contextmanager
def waiter(lock: pylocks.TicketLock) -> Iterator[Puppet]:
    """Another process."""
    made = Puppet("fork", lock)
    try:
        yield made
    finally:
        made.kill()
        made.end()


def contend(lock: pylocks.TicketLock, other: Puppet) -> int:
    """Give the lock back as soon as the other waits; how many spins that has ended."""
    before = lock.domain.stats().spin_grants
    with lock:
        other.start(take)
        until(lambda: _waits(lock, other), "a waiter")
    other.finish()
    return lock.domain.stats().spin_grants - before


def _waits(lock: pylocks.TicketLock, other: Puppet) -> bool:
    """Says its vCPU: a bounded lock's waiters have no ticket of it."""
    view = ffi.new("struct plk_vcpu_view *")
    segment = live_segment(lock.domain)
    used = range(lib.plk_vcpus_used(segment))
    seen = (v for i in used if lib.plk_vcpu_view(segment, i, view) == 0 for v in [view] if v.pid == other.pid)
    return any(v.wait_since != 0 for v in seen)


def skipped(lock: pylocks.TicketLock, other: Puppet) -> int:
    """Spins that the other has not begun, of ROUNDS attempts, because the holder could not run."""
    before = lock.domain.stats().preempted
    for _ in range(ROUNDS):
        other.call(poll)
    return lock.domain.stats().preempted - before


# ------------------------------------------------------------------- honoured


def none_spins() -> None:
    """Told not to."""
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain, policy=POLICY)
    with pylocks.Hypervisor(domain, spin="off"), waiter(lock) as other:
        assert in_force(domain) == (0, lib.PLK_TRUST_OWN)
        assert sum(contend(lock, other) for _ in range(ROUNDS)) == 0
        assert domain.stats().waits >= ROUNDS


def they_spin() -> None:
    """For as long as they are told, and get it."""
    domain = pylocks.Domain()
    if process.decision is None or process.decision.spin.ns == 0:
        print("nobody spins on this machine")
        return
    lock = pylocks.TicketLock(domain=domain, policy=POLICY)
    with pylocks.Hypervisor(domain, spin=LONG), waiter(lock) as other:
        assert in_force(domain) == (LONG_NS, lib.PLK_TRUST_OWN)
        until(lambda: contend(lock, other), "a spin that ends with the lock")


def who_had_better_not() -> None:
    """A process with one CPU does not spin, whatever it is told."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain, policy=POLICY)
    with pylocks.Hypervisor(domain, spin=LONG), waiter(lock) as other:
        assert in_force(domain)[0] == LONG_NS
        assert sum(contend(lock, other) for _ in range(ROUNDS)) == 0


def _holder_on_the_waiters_cpu(check: Callable[[pylocks.Domain, pylocks.TicketLock, Puppet], None]) -> None:
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain)
    cpu = min(os.sched_getaffinity(0))
    with waiter(lock) as other:
        pin(lock, cpu)
        other.call(pin, cpu)
        other.call(keep)
        assert not lock.acquire(timeout=SHORT_S)  # in the slow case one says where one runs
        other.call(give)
        with lock:
            check(domain, lock, other)


def by_the_cpu() -> None:
    """Each as it has chosen, all by the CPU, or nobody."""

    def check(domain: pylocks.Domain, lock: pylocks.TicketLock, other: Puppet) -> None:
        assert skipped(lock, other) > 0
        for told, expected in (("off", False), ("same_cpu", True), ("own", True)):
            with pylocks.Hypervisor(domain, preemption=told):
                assert (skipped(lock, other) > 0) is expected, told
        assert in_force(domain) == OWN

    _holder_on_the_waiters_cpu(check)


def by_the_marks() -> None:
    """The service has a monitor, and who would have gone by the CPU goes by its marks."""
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain)
    assert not missing(), missing()
    with waiter(lock) as other:
        other.call(pin, max(os.sched_getaffinity(0)))
        with lock:
            assert skipped(lock, other) == 0  # this thread has not said where it runs, and sleeps
            with pylocks.Hypervisor(domain, preemption="bpf") as hypervisor:
                assert in_force(domain) == (lib.PLK_SPIN_OWN, lib.PLK_TRUST_MARKS)
                until(lambda: skipped(lock, other), "a look at the marks")
                pid = hypervisor.pid
                assert pid is not None
                os.kill(pid, signal.SIGKILL)
                until(lambda: in_force(domain) == OWN, "its end")


# ---------------------------------------------------------- for as long as it lives


def until_it_is_killed() -> None:
    """At once, not when it is noticed."""
    domain = pylocks.Domain()
    with pylocks.Hypervisor(domain, spin=LONG, preemption="off") as hypervisor:
        pid = hypervisor.pid
        assert pid is not None and in_force(domain) == (LONG_NS, lib.PLK_TRUST_NOTHING)
        watched = os.pidfd_open(pid)
        os.kill(pid, signal.SIGKILL)
        assert select.select([watched], [], [], PATIENCE_S)[0]  # all its threads have ended
        os.close(watched)
        assert in_force(domain) == OWN


def until_it_ends() -> None:
    """In good order."""
    domain = pylocks.Domain()
    with pylocks.Hypervisor(domain, spin="off", preemption="off"):
        assert in_force(domain) == (0, lib.PLK_TRUST_NOTHING)
    assert in_force(domain) == OWN


def while_it_runs() -> None:
    """One that is stopped has its say for some seconds; one that runs renews it."""
    domain = pylocks.Domain()
    with pylocks.Hypervisor(domain, spin="off") as hypervisor:
        pid = hypervisor.pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "it to stop")
            until(lambda: in_force(domain) == OWN, "it to lose its say")
        finally:
            os.kill(pid, signal.SIGCONT)
        until(lambda: in_force(domain) == (0, lib.PLK_TRUST_OWN), "it to have it again")


def the_next_one_decides() -> None:
    """Whoever takes over, also if it has nothing to say."""
    domain = pylocks.Domain()
    first = pylocks.Hypervisor(domain, spin=LONG, preemption="off")
    second = pylocks.Hypervisor(domain, spin="off", wait=True)
    third = pylocks.Hypervisor(domain, wait=True)
    first.start()
    for successor, expected in ((second, (0, lib.PLK_TRUST_OWN)), (third, OWN)):
        successor.start()
        pid = successor.pid
        assert pid is not None and in_force(domain) != OWN
        os.kill(pid, signal.SIGKILL)
        until(lambda pid=pid, one=successor: one.pid not in (None, pid), "the next")  # type: ignore[misc]
        until(lambda expected=expected: in_force(domain) == expected, "it to decide")  # type: ignore[misc]
    for one in (first, second, third):
        one.stop()


def words_that_nobody_writes() -> None:
    """Are no more than advice: a time is bounded, and a choice that there is not is nobody's."""
    domain = pylocks.Domain()
    segment = live_segment(domain)
    assert lib.plk_service_begin(segment) == 0
    for spin, trust, expected in (
        (lib.PLK_SPIN_OWN - 1, 4, (lib.PLK_SPIN_MOST_NS, lib.PLK_TRUST_OWN)),
        (20, 2**32 - 1, (20, lib.PLK_TRUST_OWN)),
    ):
        lib.plk_policy_publish(segment, spin, trust, time.monotonic_ns() + HOUR_NS)
        assert in_force(domain) == expected
    lib.plk_policy_publish(segment, 0, lib.PLK_TRUST_NOTHING, time.monotonic_ns())
    assert in_force(domain) == OWN
    lib.plk_service_end(segment, ffi.new("struct plk_service *"))


if __name__ == "__main__":
    globals()[sys.argv[1]]()
