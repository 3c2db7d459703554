"""TicketLock: when its cell is used again, and what forks, ending threads and the collector do to it."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support import run, tasks
from support.child import in_child
from support.puppet import KINDS, troupe
from support.wait import until

import pylocks
from pylocks._core import lib
from pylocks.locks import lock_at


@pytest.fixture
def lock() -> pylocks.TicketLock:
    return pylocks.TicketLock()


# ------------------------------------------------------------------ reuse of cells


def _generation(lock: pylocks.TicketLock) -> int:
    return int(lock.domain.cell(lock.index).generation)


def test_the_cell_of_a_lock_that_nobody_shares_is_used_again() -> None:
    with pylocks.Domain(locks=1) as domain:
        ticket = 0
        for generation in range(5):
            lock = pylocks.TicketLock(domain=domain)
            assert (lock.index, _generation(lock), lock.ticket) == (0, generation, ticket)
            with lock:
                ticket += 1
            del lock


def _pickle_it(lock: pylocks.TicketLock) -> object:
    return pickle.dumps(lock)


def _copy_it(lock: pylocks.TicketLock) -> object:
    return copy.copy(lock)


def _fork(lock: pylocks.TicketLock) -> None:
    assert in_child(lambda: None) is None


def _hold_it(lock: pylocks.TicketLock) -> None:
    lock.acquire()


def _queue_for_it(lock: pylocks.TicketLock) -> None:
    """Leaves an abandoned ticket, which is passed over only when the holder releases."""
    lock.acquire()
    thread = threading.Thread(target=lock.acquire, args=(True, 0.001))
    thread.start()
    thread.join()


@pytest.mark.parametrize("share", (_pickle_it, _copy_it, _fork, _hold_it, _queue_for_it))
def test_the_cell_of_a_lock_that_may_be_shared_is_not_used_again(
    share: Callable[[pylocks.TicketLock], object],
) -> None:
    domain = pylocks.Domain(locks=2)
    lock = pylocks.TicketLock(domain=domain)
    share(lock)
    held = lock.locked()
    del lock
    assert pylocks.TicketLock(domain=domain).index == 1
    assert pylocks.TicketLock(domain=domain).index == 1
    if held:
        lock_at(domain, 0).release()


def test_a_named_lock_is_never_given_away() -> None:
    with pylocks.Domain(locks=2) as domain:
        index = domain.lock("orders").index
        gc.collect()
        assert pylocks.TicketLock(domain=domain).index != index
        assert domain.lock("orders").index == index


def test_a_pickle_of_a_freed_cell_is_refused() -> None:
    with pylocks.Domain() as domain:
        lock = pylocks.TicketLock(domain=domain)
        data = pickle.dumps(lock)
        assert pickle.loads(data).index == lock.index
        domain.free_cell(lock.index, lib.plk_forks_seen())  # which never happens to a lock that was pickled
        with pytest.raises(pylocks.UnknownLockError, match="freed"):
            pickle.loads(data)
        assert pylocks.TicketLock(domain=domain).index == lock.index
        with pytest.raises(pylocks.UnknownLockError, match="freed"):
            pickle.loads(data)


def test_more_locks_than_cells_one_after_the_other() -> None:
    with pylocks.Domain(locks=4) as domain:
        for _ in range(1000):
            with pylocks.TicketLock(domain=domain), pylocks.TicketLock(domain=domain):
                pass


# ------------------------------------------------------------------ fork


def test_after_fork_the_parent_is_the_owner(lock: pylocks.TicketLock) -> None:
    def child() -> tuple[Any, ...]:
        owner = lock.owner
        refused = ""
        try:
            lock.release()
        except pylocks.NotOwnerError as error:
            refused = str(error)
        return owner, lock.acquire(False), lock.acquire(timeout=0.001), refused

    with lock:
        owner, tried, timed, refused = in_child(child)
        assert (owner, tried, timed) == (lock.owner, False, False)
        assert f"process {os.getpid()}" in refused
    assert in_child(lambda: lock.acquire() and lock.owner).alive is True


def test_the_child_of_a_fork_waits_for_the_parent(lock: pylocks.TicketLock) -> None:
    with troupe("fork", lock) as made:
        lock.acquire()
        child = made.puppets(1)[0]
        made.queue([child], tasks.acquire)
        lock.release()
        assert child.finish() is True
        owner = lock.owner
        assert owner is not None and owner.pid == child.pid
        child.call(tasks.release)


def test_a_child_knows_nothing_of_the_parents_other_threads(lock: pylocks.TicketLock) -> None:
    """Fork while one thread holds and another waits: both stay the parent's."""
    with troupe("threads", lock) as made:
        holder, waiter = made.puppets(2)
        holder.call(tasks.acquire)
        made.queue([waiter], tasks.acquire)

        def child() -> tuple[Any, ...]:
            lock.domain.stats()
            other = pylocks.TicketLock(domain=lock.domain)
            with other:
                mine = other.owner
            return mine, lock.waiters, lock.acquire(timeout=0.01), os.getpid()

        mine, waiters, entered, pid = in_child(child)
        assert (mine.pid, waiters, entered) == (pid, 1, False)
        holder.call(tasks.release)
        assert waiter.finish() is True
        waiter.call(tasks.release)
    assert not lock.locked()


def test_fork_in_a_thread(lock: pylocks.TicketLock) -> None:
    """The thread that forks is the child's main thread."""
    found: list[Any] = []

    def fork() -> None:
        with lock:
            found.append(in_child(lambda: (lock.acquire(False), lock.owner is not None)))

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    assert found == [(False, True)]


# ------------------------------------------------------------------ threads and vCPUs


def _tids(domain: pylocks.Domain) -> set[int]:
    return {v.tid for v in domain.vcpus()}


def test_a_thread_that_ends_gives_up_its_slot() -> None:
    with pylocks.Domain(vcpus=2) as domain:
        lock = pylocks.TicketLock(domain=domain)
        with lock:
            pass
        for _ in range(20):
            tid: list[int] = []

            def work(tid: list[int] = tid) -> None:
                with lock:
                    tid.append(threading.get_native_id())

            thread = threading.Thread(target=work)
            thread.start()
            thread.join()
            until(lambda tid=tid: tid[0] not in _tids(domain), "the thread has ended for the kernel, too")  # type: ignore[misc]
        assert _tids(domain) == {threading.get_native_id()}


def _die_as_owner() -> None:
    """A thread ends while it holds; the next to acquire is told."""
    lock = pylocks.TicketLock(domain=pylocks.Domain())
    thread = threading.Thread(target=lock.acquire)
    thread.start()
    thread.join()

    def dead() -> bool:
        owner = lock.owner
        assert owner is not None
        return not owner.alive

    until(dead, "the thread has ended for the kernel, too")
    with pytest.warns(pylocks.OwnerDiedWarning):
        assert lock.acquire(timeout=60)
    assert lock.owner_died
    lock.release()


def test_a_thread_that_ends_while_it_holds_dies_as_its_owner() -> None:
    """In a child, because such a thread's mapping stays for as long as its process."""
    in_child(_die_as_owner)


def test_slots_of_dead_children_are_used_again() -> None:
    with pylocks.Domain(vcpus=16) as domain:
        lock = pylocks.TicketLock(domain=domain)

        def visit() -> None:
            with lock:
                pass

        for _ in range(300):
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    visit()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitpid(pid, 0)[1] == 0
        visit()
        assert lock.ticket == 301


@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_idle_participant_is_no_trouble(kind: str) -> None:
    with pylocks.Domain(vcpus=2) as domain:
        lock = pylocks.TicketLock(domain=domain)
        for _ in range(3 if kind == "spawn" else 8):
            with troupe(kind, lock) as made:
                (puppet,) = made.puppets(1)
                assert puppet.call(tasks.acquire)
                puppet.call(tasks.release)
                if kind != "threads":
                    puppet.kill()
            if kind == "threads":
                until(lambda tid=puppet.tid: tid not in _tids(domain), "the thread has ended")  # type: ignore[misc]
            assert lock.acquire(timeout=30)
            lock.release()


# ------------------------------------------------------------------ awkward moments


def test_a_signal_handler_may_need_the_domain_that_is_just_being_made() -> None:
    done = run.python(
        "-c",
        "import signal, pylocks\n"
        "from pylocks import locks\n"
        "real = locks.Domain\n"
        "def interrupted(*arguments, **keywords):\n"
        "    signal.raise_signal(signal.SIGUSR1)\n"
        "    return real(*arguments, **keywords)\n"
        "def handler(*_):\n"
        "    locks.Domain = real\n"
        "    made.append(pylocks.TicketLock())\n"
        "made, locks.Domain = [], interrupted\n"
        "signal.signal(signal.SIGUSR1, handler)\n"
        "made.append(pylocks.TicketLock())\n"
        "for lock in made:\n"
        "    with lock: pass\n"
        "print(len(made), made[0].domain is made[1].domain)\n",
        limit=30,
    )
    assert done.check() == "2 True\n"


def test_a_handler_that_waits_for_its_own_frames_lock_is_told(lock: pylocks.TicketLock) -> None:
    heard: list[BaseException] = []

    def handler(*_: object) -> None:
        with pytest.raises(pylocks.AlreadyOwnerError, match="wait for itself") as caught:
            lock.acquire()
        heard.append(caught.value)

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with troupe("threads", lock) as made:
            holder, sender = made.puppets(2)
            holder.call(tasks.acquire)
            sender.start(tasks.signal_when_queued, 1, os.getpid(), signal.SIGUSR1)

            def release_afterwards() -> None:
                until(lambda: heard, "the handler to have run")
                holder.call(tasks.release)

            thread = threading.Thread(target=release_afterwards)
            thread.start()
            with lock:
                assert heard
            thread.join()
            sender.finish()
    finally:
        signal.signal(signal.SIGUSR1, before)
    until(lambda: not lock.locked(), "the lock to be free")


def test_closing_while_the_collector_closes_another() -> None:
    """One thread closes a domain; another is inside it when the collector frees a third."""
    domain = pylocks.Domain()
    pylocks.TicketLock(domain=domain)
    inside, closing = threading.Event(), threading.Event()
    real = domain._live

    def live() -> Any:
        if threading.current_thread() is not other:
            closing.set()
            return real()
        cycle: list[Any] = [pylocks.Domain()]
        cycle.append(cycle)
        del cycle
        inside.set()
        closing.wait(0.2)
        gc.collect()
        return real()

    domain._live = live  # type: ignore[method-assign]
    other = threading.Thread(target=domain.stats, daemon=True)
    other.start()
    assert inside.wait(30)
    domain.close()
    other.join(30)
    assert not other.is_alive()


@pytest.mark.parametrize(
    "kept",
    (
        "pylocks.TicketLock()",
        "pylocks.Domain().lock('orders')",
        "pylocks.Domain()",
        "pylocks.LockArray(3)[1]",
        "pylocks.TicketLock().within(1)",
    ),
)
def test_what_outlives_its_module_makes_no_noise(kept: str) -> None:
    """The interpreter clears modules at its end; what `sys` refers to goes after them."""
    cycle = "sys.cycle = [sys.kept]; sys.cycle.append(sys.cycle)"
    run.python("-c", f"import sys, pylocks; sys.kept = {kept}; {cycle}").check()


def test_ending_with_locks_held_and_waited_for_by_daemons() -> None:
    done = run.python(
        "-c",
        "import threading, pylocks\n"
        "lock = pylocks.TicketLock()\n"
        "lock.acquire()\n"
        "for _ in range(3): threading.Thread(target=lock.acquire, daemon=True).start()\n"
        "while lock.waiters < 3: pass\n",
        limit=30,
    )
    done.check()
