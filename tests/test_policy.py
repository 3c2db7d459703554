"""Bounded locks in the directory: two cells that go together; and who may have one."""

from __future__ import annotations

import inspect
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable

import pytest
from support import run, tasks
from support.clauses import Ring, raises, ring
from support.puppet import troupe
from support.stage import handler
from support.wait import until

import pylocks
from pylocks._core import lib
from pylocks.locks import lock_at

# ------------------------------------------------------------------ what is there


def test_a_policy_is_one_of_those_there_are() -> None:
    with pylocks.Domain() as domain:
        with pytest.raises(ValueError, match=r"'fifo', 'bounded'.*'lifo'"):
            pylocks.TicketLock(domain=domain, policy="lifo")
        assert pylocks.TicketLock(domain=domain).policy == "fifo"
        for policy in ("fifo", "bounded"):
            assert pylocks.TicketLock(domain=domain, policy=policy).policy == policy


def test_a_named_lock_has_the_policy_with_which_it_was_made() -> None:
    with pylocks.Domain() as domain:
        for made, other in (("fifo", "bounded"), ("bounded", "fifo")):
            lock = pylocks.TicketLock(made, domain=domain, policy=made)
            for policy in (None, made):
                for create in (True, False):
                    again = pylocks.TicketLock(made, domain=domain, policy=policy, create=create)
                    assert (again.index, again.policy) == (lock.index, made)
            for create in (True, False):
                with pytest.raises(ValueError, match=f"{made!r}.*policy={made!r}, not {other!r}"):
                    pylocks.TicketLock(made, domain=domain, policy=other, create=create)
            assert domain.lock(made).policy == pickle.loads(pickle.dumps(lock)).policy == made
        assert pylocks.TicketLock("new", domain=domain).policy == "fifo"
        assert [lock.policy for lock in domain.locks()] == ["fifo", "bounded", "fifo"]


def test_another_process_finds_the_policy(name: str) -> None:
    script = (
        "import sys, pylocks\n"
        "domain = pylocks.Domain(sys.argv[1])\n"
        "print(domain.lock('orders').policy)\n"
        "try: pylocks.TicketLock('orders', domain=domain, policy='fifo')\n"
        "except ValueError as error: print(error)\n"
    )
    lock = pylocks.TicketLock("orders", domain=pylocks.Domain(name), policy="bounded")
    with lock:
        found, refusal = run.python("-c", script, name).check().splitlines()
    assert found == "bounded"
    assert "'orders'" in refusal and name in refusal and "'bounded', not 'fifo'" in refusal


def test_arrays_have_no_policy() -> None:
    assert "policy" not in inspect.signature(pylocks.LockArray.__new__).parameters
    array = pylocks.LockArray(4)
    assert [lock.policy for lock in array] == ["fifo"] * 4
    with pytest.raises(ValueError, match="LockArray"):
        pylocks.TicketLock(domain=array.domain, policy="bounded")
    array.close()


# ------------------------------------------------------------------ the protocol


def test_where_nobody_is_woken_there_are_no_bounded_locks() -> None:
    script = (
        "import pylocks\n"
        "domain = pylocks.Domain(locks=4)\n"
        "for name in (None, 'orders'):\n"
        "    try: pylocks.TicketLock(name, domain=domain, policy='bounded')\n"
        "    except pylocks.ProtocolMismatchError as error: print(error)\n"
        "locks = [pylocks.TicketLock(domain=domain) for _ in range(4)]\n"  # and no cell was lost
        "with locks[3]: print(domain.locks(), locks[3].index)\n"
    )
    *refusals, rest = (
        run.python("-c", script, environment=run.settings(PYLOCKS_PROTOCOL="native")).check().splitlines()
    )
    assert len(refusals) == 2 and rest == "() 3"
    for refusal in refusals:
        assert "native" in refusal and "protocol='enlightened'" in refusal


def test_a_bounded_lock_in_a_domain_that_became_native_is_refused(name: str) -> None:
    make = (
        "import sys, pylocks\n"
        "pylocks.TicketLock('orders', domain=pylocks.Domain(sys.argv[1]), policy='bounded')\n"
    )
    run.python("-c", make, name).check()
    use = (
        "import sys, pylocks\n"
        "try: pylocks.Domain(sys.argv[1]).lock('orders')\n"
        "except pylocks.ProtocolMismatchError as error: print(error)\n"
    )
    said = run.python("-c", use, name, environment=run.settings(PYLOCKS_PROTOCOL="native")).check()
    assert "'orders'" in said and name in said and "native" in said
    with pylocks.TicketLock("orders", domain=pylocks.Domain(name), policy="bounded"):
        pass  # nobody uses it as a native one now


# ------------------------------------------------------------------ two cells


def test_a_queue_is_no_lock_of_its_own() -> None:
    with pylocks.Domain() as domain:
        lock = pylocks.TicketLock(domain=domain, policy="bounded")
        assert pylocks.TicketLock(domain=domain).index == lock.index + 2
        with pytest.raises(pylocks.UnknownLockError, match="queue of a bounded one"):
            lock_at(domain, lock.index + 1)


def test_a_freed_pair_is_used_again_as_a_pair() -> None:
    with pylocks.Domain(locks=3) as domain:
        single = pylocks.TicketLock(domain=domain)
        for generation in range(3):
            pair = pylocks.TicketLock(domain=domain, policy="bounded")
            assert (pair.index, domain.cell(pair.index).generation) == (1, generation)
            with pair:
                pass
            with pytest.raises(pylocks.DomainFullError):
                pylocks.TicketLock(domain=domain)
            del pair
            with pytest.raises(pylocks.DomainFullError):  # the pair is no room for a single one
                pylocks.TicketLock(domain=domain)
        del single
        with pytest.raises(pylocks.DomainFullError):  # nor is the single one a pair's with its neighbour
            [pylocks.TicketLock(domain=domain, policy="bounded") for _ in range(2)]
        assert pylocks.TicketLock(domain=domain).index == 0


def test_a_pair_that_is_waited_for_is_not_freed() -> None:
    with pylocks.Domain(locks=8) as domain:
        lock = pylocks.TicketLock(domain=domain, policy="bounded")
        with troupe("threads", lock) as made:
            (waiter,) = made.puppets(1)
            lock.acquire()
            made.queue([waiter], tasks.acquire, True, 300.0)
            domain.free_cell(lock.index, lib.plk_forks_seen())
            assert domain.cell(lock.index).flags & lib.PLK_CELL_ALLOCATED
            lock.release()
            assert waiter.finish() is True
            waiter.call(tasks.release)


@pytest.mark.parametrize("named", [False, True])
def test_one_cell_left_is_no_room_for_a_pair(named: bool) -> None:
    with pylocks.Domain(locks=4) as domain:
        kept = [pylocks.TicketLock(domain=domain, policy="bounded"), pylocks.TicketLock(domain=domain)]
        for _ in range(2):
            with pytest.raises(pylocks.DomainFullError, match="no room"):
                pylocks.TicketLock("orders" if named else None, domain=domain, policy="bounded")
        assert domain.locks() == ()
        kept.append(pylocks.TicketLock("orders" if named else None, domain=domain))
        assert [lock.index for lock in kept] == [0, 2, 3]
        for lock in kept:
            with lock:
                pass


# ------------------------------------------------------------------ who waits


def _first_in_queue(lock: pylocks.TicketLock, tid: int) -> Callable[[], bool]:
    """The thread holds the queue, whether it is at the gate already or not, and sleeps."""

    def seen() -> bool:
        queue = lock.domain.owner(lock.index + 1)
        return (
            queue is not None
            and queue.tid == tid
            and any(v.tid == tid and v.parked for v in lock.domain.vcpus())
        )

    return seen


def test_waiters_are_seen_at_the_lock_and_not_at_its_queue() -> None:
    with pylocks.Domain() as domain:
        lock = pylocks.TicketLock(domain=domain, policy="bounded")
        with troupe("fork", lock) as made:
            first, second = made.puppets(2)
            lock.acquire()
            made.queue([first, second], tasks.acquire, True, 300.0)
            until(lambda: any(v.tid == second.tid and v.parked for v in domain.vcpus()), "the second sleeps")
            assert lock.waiters == 2
            assert {v.waiting_for for v in domain.vcpus() if v.tid == second.tid} == {lock.index}
            lock.release()
            for puppet in (first, second):
                assert puppet.finish() is True
                puppet.call(tasks.release)


@pytest.mark.parametrize("how", ["raises", "times out"])
def test_a_domain_can_be_closed_after_an_interrupted_wait(how: str) -> None:
    """Signals interrupted it there: what they put aside and brought back is not kept."""
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain, policy="bounded")
    rung = []

    def heard() -> None:
        rung.append(time.monotonic())
        if how == "raises" and len(rung) == 3:
            ring()

    me, pid = threading.get_native_id(), os.getpid()
    with troupe("fork", lock) as made, handler(signal.SIGUSR1, heard):
        (holder,) = made.puppets(1)
        holder.call(tasks.acquire)

        def send() -> None:
            until(_first_in_queue(lock, me), "the main thread holds the queue")
            for number in range(3):
                os.kill(pid, signal.SIGUSR1)
                until(lambda number=number: len(rung) > number, "a signal is heard")  # type: ignore[misc]

        sender = threading.Thread(target=send)
        sender.start()
        if how == "raises":
            raises(Ring, lock.acquire)
        else:
            assert lock.acquire(timeout=1.0) is False
        sender.join()
        assert len(rung) == 3
        (mine,) = (v for v in domain.vcpus() if v.tid == me)
        assert (mine.held, mine.waiting_for, mine.waiting_since, mine.parked) == (0, None, None, False)
        holder.call(tasks.release)
        with lock:
            pass
        domain.close()
