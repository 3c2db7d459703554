"""Domain: closing, unlinking, forking, and the death of all who used it."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from conftest import segment_path
from support import run, tasks
from support.child import in_child
from support.puppet import KINDS, troupe
from support.wait import until

import pylocks

# ------------------------------------------------------------------ close


def test_a_closed_domain_is_of_no_use(name: str) -> None:
    with pylocks.Domain(name) as domain:
        lock = domain.lock("orders")
        with lock:
            pass
    domain.close()
    uses: list[Callable[[], Any]] = [
        lock.acquire,
        lambda: lock.acquire(False),
        lambda: lock.acquire(timeout=1),
        lock.__enter__,
        lock.release,
        lock.locked,
        lambda: lock.waiters,
        lambda: lock.ticket,
        lambda: lock.owner,
        lambda: lock.within(1).__enter__(),
        lambda: pickle.dumps(lock),
        lambda: pickle.dumps(domain),
        lambda: domain.lock("orders"),
        domain.locks,
        domain.vcpus,
        domain.stats,
        lambda: domain.address,
        lambda: pylocks.TicketLock(domain=domain),
    ]
    for use in uses:
        with pytest.raises(pylocks.ClosedError, match=name):
            use()
    assert (lock.index, lock.name, lock.domain) == (0, "orders", domain)


def test_a_domain_is_not_closed_under_a_holder_or_a_waiter() -> None:
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain)
    with troupe("threads", lock) as made:
        holder, waiter = made.puppets(2)
        holder.call(tasks.acquire)
        for queue in (False, True):
            if queue:
                made.queue([waiter], tasks.acquire)
            with pytest.raises(pylocks.DomainBusyError, match="holds or waits"):
                domain.close()
            assert not domain.closed
            assert lock.locked()
        holder.call(tasks.release)
        assert waiter.finish() is True
        with pytest.raises(pylocks.DomainBusyError):
            domain.__exit__(None, None, None)
        waiter.call(tasks.release)
        domain.close()
        assert domain.closed
        with pytest.raises(pylocks.ClosedError):
            holder.call(tasks.acquire)


@pytest.mark.parametrize("kind", ("fork", "spawn"))
def test_other_processes_go_on_after_close(kind: str) -> None:
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain)
    with troupe(kind, lock) as made:
        holder, waiter = made.puppets(2)
        holder.call(tasks.acquire)
        waiter.start(tasks.acquire)
        until(lambda: lock.waiters == 1, "the other waits")
        domain.close()
        holder.call(tasks.release)
        assert waiter.finish() is True
        assert holder.call(tasks.acquire, False) is False
        waiter.call(tasks.release)


def test_a_domain_is_opened_again_after_close(name: str) -> None:
    first = pylocks.Domain(name)
    lock = first.lock("orders")
    with lock:
        pass
    first.close()
    second = pylocks.Domain(name)
    assert second is not first and second.uid == first.uid
    again = second.lock("orders", create=False)
    assert (again.index, again.ticket) == (lock.index, 1)
    with again, pytest.raises(pylocks.ClosedError):
        lock.acquire()


def test_a_thread_that_used_the_domain_ends_after_close() -> None:
    """Its life word lies in the segment, which must be there until it is gone."""
    for _ in range(50):
        domain = pylocks.Domain()
        lock = pylocks.TicketLock(domain=domain)
        used, closed = threading.Event(), threading.Event()

        def work(lock: Any = lock, used: Any = used, closed: Any = closed) -> None:
            with lock:
                pass
            used.set()
            closed.wait()

        thread = threading.Thread(target=work)
        thread.start()
        used.wait()
        domain.close()
        del domain, lock, work
        gc.collect()
        closed.set()
        thread.join()


CLOSING = """
import threading, sys, pylocks
sys.setswitchinterval(1e-5)
for _ in range(300):
    domain = pylocks.Domain(vcpus=4, locks=4)
    lock = pylocks.TicketLock(domain=domain)
    ended = []
    def work():
        doing = "acquire"
        try:
            while True:
                doing = "acquire"; lock.acquire()
                doing = "release"; lock.release()
        except pylocks.ClosedError:
            ended.append(doing)
    thread = threading.Thread(target=work)
    thread.start()
    while True:
        try:
            domain.close()
            break
        except pylocks.DomainBusyError:
            pass
    thread.join()
    assert ended == ["acquire"], ended
"""


def test_closing_races_with_acquiring() -> None:
    """Either close() is refused or acquire() is; never is a lock held that nobody can release."""
    run.python("-c", CLOSING, limit=60).check()


# ------------------------------------------------------------------ unlink


def test_unlink_takes_the_name_and_nothing_else(name: str) -> None:
    domain = pylocks.Domain(name)
    lock = domain.lock("orders")
    domain.unlink()
    assert not segment_path(name).exists()
    with lock:
        assert domain.lock("orders").locked()
        other = pylocks.Domain(name)
        assert other.uid != domain.uid
        assert not other.lock("orders").locked()
    with pytest.raises(pylocks.UnknownDomainError, match="removed already"):
        domain.unlink()
    assert segment_path(name).exists(), "the name belongs to another domain now"
    other.close()
    other.unlink()
    with pytest.raises(FileNotFoundError):
        other.unlink()


def test_an_anonymous_domain_has_no_name_to_unlink() -> None:
    with pylocks.Domain() as domain, pytest.raises(ValueError, match="anonymous"):
        domain.unlink()


# ------------------------------------------------------------------ fork and death


def test_a_child_by_fork_uses_the_domain_as_itself(name: str) -> None:
    domain = pylocks.Domain(name)
    lock = domain.lock("orders")

    def child() -> tuple[Any, ...]:
        same = pylocks.Domain(name) is domain
        with domain.lock("orders", create=False):
            mine = lock.owner
        domain.close()
        return same, mine, domain.closed, os.getpid()

    with lock:
        pass
    same, mine, closed, pid = in_child(child)
    assert (same, mine.pid, closed) == (True, pid, True)
    assert not domain.closed
    with lock:
        assert lock.ticket == 2


def test_a_child_keeps_the_domain_when_the_parent_lets_go(name: str) -> None:
    """Nobody may think that it is alone with the segment while the child lives."""
    domain = pylocks.Domain(name)
    lock = domain.lock("orders")
    with troupe("fork", lock) as made:
        child = made.puppets(1)[0]
        child.call(tasks.acquire)
        domain.close()
        again = pylocks.Domain(name).lock("orders")
        assert again.domain.uid == domain.uid
        assert again.locked()
        assert again.owner is not None and again.owner.pid == child.pid
        child.call(tasks.release)
        assert not again.locked()


HOLD = """
import sys, time, pylocks
domain = pylocks.Domain(sys.argv[1], locks=40)
lock = domain.lock("orders")
lock.acquire()
domain.lock("bills"); pylocks.TicketLock(domain=domain)
print("held", flush=True)
time.sleep(1000)
"""


def test_a_domain_whose_processes_were_all_killed_is_reset(name: str) -> None:
    with run.Interactive("-c", HOLD, name) as victim:
        assert victim.line() == "held"
        domain = pylocks.Domain(name)
        lock = domain.lock("orders")
        assert lock.locked() and not lock.acquire(timeout=0.01)
        uid, ticket = domain.uid, lock.ticket
        domain.close()
        os.kill(victim.pid, signal.SIGKILL)
    with pytest.warns(pylocks.OwnerDiedWarning, match=rf"{name}.*1 of its locks"):
        again = pylocks.Domain(name)
    assert (again.uid, again.lock_limit) == (uid, 40)
    assert [lock.name for lock in again.locks()] == ["orders", "bills"]
    assert again.vcpus() == ()
    free = again.lock("orders", create=False)
    assert (free.locked(), free.owner, free.waiters) == (False, None, 0)
    with pytest.warns(pylocks.OwnerDiedWarning, match="orders"):
        assert free.acquire(False) is True
    assert free.ticket > ticket, "a ticket is never handed out twice"
    free.mark_consistent()
    free.release()


def test_a_domain_is_not_reset_while_anybody_lives(name: str) -> None:
    look = HOLD.replace("lock.acquire()", "lock.locked()")
    with run.Interactive("-c", HOLD, name) as holder, run.Interactive("-c", look, name) as other:
        assert holder.line() == other.line() == "held"
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        lock = pylocks.Domain(name).lock("orders")
        owner = lock.owner
        assert owner is not None and (owner.pid, owner.alive) == (holder.pid, False)
        until(lambda: not lock.locked(), "whoever asks recovers the lock")
        assert lock.owner_died


@pytest.mark.parametrize("kind", KINDS)
def test_close_and_open_by_many_at_once(kind: str, name: str) -> None:
    """Opening, using and closing races with others who may find themselves alone."""
    lock = pylocks.TicketLock()
    with troupe(kind, lock) as made:
        puppets = made.puppets(3)
        for puppet in puppets:
            puppet.start(tasks.open_and_close, name, 40)
        assert [puppet.finish() for puppet in puppets] == [40] * 3
