"""What is in use stays: domains are not closed, cells not freed, segments not unmapped under anybody."""

from __future__ import annotations

import gc
import threading
from typing import Any

import pytest
from support import run

import pylocks
from pylocks.mutex import Mutex, RMutex

COLLECTED = """
import gc, pylocks
class Cache:
    def __init__(self, domain):
        self.lock = pylocks.TicketLock(domain=domain)
        self.itself = self
    def __del__(self):
        with self.lock:
            seen.append(repr(self.lock))
seen = []
for _ in range(20):
    cache = Cache(pylocks.Domain(locks=64))
    with cache.lock:
        pass
    del cache
    gc.collect()
assert len(seen) == 20, seen
print("fine")
"""


def test_an_object_in_a_cycle_may_use_its_lock_to_the_last() -> None:
    assert run.python("-c", COLLECTED).check() == "fine\n"


@pytest.mark.parametrize("make", [Mutex, RMutex, pylocks.Condition, pylocks.TicketRLock])
def test_a_domain_with_a_lock_that_is_held_is_not_closed(make: Any) -> None:
    domain = pylocks.Domain(locks=64)
    lock = make(domain=domain)
    lock.acquire()
    with pytest.raises(pylocks.DomainBusyError):
        domain.close()
    lock.release()
    domain.close()


def test_what_is_held_keeps_its_cell() -> None:
    """So that nobody else's lock is ever there, with the old one's readers."""
    domain = pylocks.Domain(locks=64)
    lock = pylocks.RWLock(domain=domain)
    lock.read.acquire()
    place = lock.index
    del lock
    gc.collect()
    others = [pylocks.RWLock(domain=domain) for _ in range(20)]
    assert place not in {each.index for each in others}
    pylocks.RWLock._at(domain, place, "RWLock", None).read.release()
    domain.close()


def test_conditions_give_their_cells_back() -> None:
    with pylocks.Domain(locks=64) as domain:
        for _ in range(200):
            condition = pylocks.Condition(domain=domain)
            with condition:
                condition.notify()
            del condition


def test_who_comes_late_does_not_break_a_barrier_that_is_complete() -> None:
    """Its timeout is the next round's affair."""
    acting, go_on = threading.Event(), threading.Event()

    def action() -> None:
        acting.set()
        go_on.wait(60)

    barrier = pylocks.Barrier(2, action=action)
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(barrier.wait())) for _ in range(2)]
    for thread in threads:
        thread.start()
    assert acting.wait(60)
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(0.05)
    go_on.set()
    for thread in threads:
        thread.join()
    assert sorted(got) == [0, 1]


@pytest.mark.parametrize("timeout", [0, -1, -0.5])
def test_no_time_is_no_wait(timeout: float) -> None:
    assert pylocks.Event().wait(timeout) is False
