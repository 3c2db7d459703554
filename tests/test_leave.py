"""Leaving the queue: timeouts, signals, and the tickets that are left behind."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import POLICIES, segment_path
from support import header, run, tasks
from support.child import in_child
from support.puppet import Puppet, troupe
from support.stage import handler
from support.wait import until

import pylocks


@pytest.fixture(params=POLICIES)
def lock(name: str, request: pytest.FixtureRequest) -> pylocks.TicketLock:
    """In a domain whose header can be read."""
    return pylocks.TicketLock("orders", domain=pylocks.Domain(name), policy=request.param)


def tombstones(lock: pylocks.TicketLock) -> int:
    assert lock.domain.name is not None
    return int(header.read(segment_path(lock.domain.name)).tombs_live)


def place_of(puppet: Puppet, lock: pylocks.TicketLock) -> int | None:
    """The ticket with which the puppet waits for the lock."""
    return place(puppet.tid, lock)


def place(tid: int, lock: pylocks.TicketLock) -> int | None:
    """The ticket with which a thread waits; None while it is still on its way into the queue."""
    waiting = (v for v in lock.domain.vcpus() if v.waiting_for == lock.index and v.waiting_since is not None)
    return next((v.ticket for v in waiting if v.tid == tid), None)


# ------------------------------------------------------------------ timeouts


def test_no_timeout_comes_early(lock: pylocks.TicketLock) -> None:
    chance = random.Random(7)
    with troupe("threads", lock) as made:
        holder = made.puppets(1)[0]
        holder.call(tasks.acquire)
        for _ in range(60):
            timeout = chance.choice((1e-9, 1e-6, 1e-4, 3e-3)) * chance.random()
            began = time.monotonic()
            assert lock.acquire(timeout=timeout) is False
            assert time.monotonic() - began >= timeout
        holder.call(tasks.release)
    assert tombstones(lock) == 0


def test_a_turn_in_time_is_taken(lock: pylocks.TicketLock) -> None:
    with troupe("fork", lock) as made:
        waiter = made.puppets(1)[0]
        for _ in range(10):
            lock.acquire()
            made.queue([waiter], tasks.acquire, True, 300.0)
            lock.release()
            assert waiter.finish() is True
            waiter.call(tasks.release)


def test_polling_leaves_one_ticket_however_often(lock: pylocks.TicketLock) -> None:
    with troupe("threads", lock) as made:
        pollers = made.puppets(2)
        lock.acquire()
        for _ in range(100):
            for poller in pollers:
                assert poller.call(tasks.acquire, True, 1e-6) is False
            left = lock.waiters, tombstones(lock)
            # Who is the first in a bounded lock's queue holds it, and leaves it to the next.
            assert left == (2, 2) if lock.policy == "fifo" else max(left) <= 2
        lock.release()
        assert (lock.locked(), tombstones(lock)) == (False, 0)
        with lock:
            pass


def test_many_who_left_are_passed_over_at_once(lock: pylocks.TicketLock) -> None:
    with troupe("threads", lock) as made:
        leavers, (waiter,) = made.puppets(5), made.puppets(1)
        lock.acquire()
        mine = lock.ticket
        for leaver in leavers:
            assert leaver.call(tasks.acquire, True, 0.0005) is False
        waiter.start(tasks.acquire)
        until(lambda: place_of(waiter, lock) == mine + 6, "the waiter is behind all of them")
        assert (lock.waiters, tombstones(lock)) == (6, 5)
        lock.release()
        assert waiter.finish() is True
        assert (lock.ticket, lock.waiters, tombstones(lock)) == (mine + 6, 0, 0)
        waiter.call(tasks.release)


def test_who_comes_back_too_late_queues_up_anew(lock: pylocks.TicketLock) -> None:
    with troupe("threads", lock) as made:
        leaver, other = made.puppets(2)
        lock.acquire()
        mine = lock.ticket
        assert leaver.call(tasks.acquire, True, 0.0005) is False
        other.start(tasks.acquire)
        until(lambda: place_of(other, lock) == mine + 2, "the other is behind")
        lock.release()
        assert other.finish() is True
        leaver.start(tasks.acquire, True, 60.0)
        until(lambda: place_of(leaver, lock) == mine + 3, "the leaver has a new place")
        other.call(tasks.release)
        assert leaver.finish() is True
        leaver.call(tasks.release)


def test_places_are_kept_in_many_queues_at_once(name: str) -> None:
    """More of them than fit into the room that is first made for them."""
    domain = pylocks.Domain(name)
    locks = [domain.lock(f"lock {i}") for i in range(40)]
    with troupe("threads", locks[0]) as made:
        leaver, other = made.puppets(2)
        for lock in locks:
            lock.acquire()
        for wanted in (leaver, other):
            for lock in locks:
                assert wanted.call(tasks.try_other, lock, 1e-6) is False
        assert tombstones(locks[0]) == 80
        for lock in reversed(locks):
            leaver.start(tasks.try_other, lock, 60.0)
            until(lambda lock=lock: place_of(leaver, lock) == lock.ticket + 1, "back at its place")  # type: ignore[misc]
            lock.release()
            assert leaver.finish() is True
            leaver.call(tasks.release_other, lock)
            assert not lock.locked()
        assert tombstones(locks[0]) == 0


@pytest.mark.parametrize("kind", ("threads", "fork"))
def test_who_left_and_died_is_passed_over(kind: str, lock: pylocks.TicketLock) -> None:
    lock.acquire()
    with troupe(kind, lock) as made:
        leaver = made.puppets(1)[0]
        assert leaver.call(tasks.acquire, True, 0.0005) is False
        if kind == "fork":
            leaver.kill()
    assert (lock.waiters, tombstones(lock)) == (1, 1)
    lock.release()
    assert (lock.locked(), tombstones(lock)) == (False, 0)
    assert lock.acquire(False) is True
    lock.release()


def test_a_child_does_not_come_back_to_its_parents_place(lock: pylocks.TicketLock) -> None:
    with troupe("threads", lock) as made:
        holder = made.puppets(1)[0]
        holder.call(tasks.acquire)
        mine = lock.ticket + 1
        assert lock.acquire(timeout=0.0005) is False
        assert in_child(lambda: lock.acquire(timeout=0.0005)) is False
        assert (lock.waiters, tombstones(lock)) == (2, 2)

        def release_when_back() -> None:
            until(lambda: place(threading.main_thread().native_id or 0, lock) == mine, "back at the place")
            holder.call(tasks.release)

        thread = threading.Thread(target=release_when_back)
        thread.start()
        assert lock.acquire(timeout=60) is True
        thread.join()
        assert lock.ticket == mine
        lock.release()
    assert (lock.locked(), tombstones(lock)) == (False, 0)


def test_a_domain_with_places_left_behind_can_be_closed(lock: pylocks.TicketLock, name: str) -> None:
    with troupe("fork", lock) as made:
        holder, waiter = made.puppets(2)
        holder.call(tasks.acquire)
        assert lock.acquire(timeout=0.0005) is False
        lock.domain.close()
        waiter.start(tasks.acquire)
        again = pylocks.Domain(name).lock("orders")
        until(lambda: again.waiters == 2, "the waiter is behind the place left")
        holder.call(tasks.release)
        assert waiter.finish() is True
        waiter.call(tasks.release)
        assert not again.locked()


def test_within_gives_the_place_up(lock: pylocks.TicketLock) -> None:
    with troupe("threads", lock) as made:
        holder = made.puppets(1)[0]
        holder.call(tasks.acquire)
        for _ in range(3):
            with pytest.raises(TimeoutError), lock.within(0.0005):
                pytest.fail("entered")
        assert (lock.waiters, tombstones(lock)) == (1, 1)
        holder.call(tasks.release)
    assert not lock.locked()


# ------------------------------------------------------------------ signals


@pytest.mark.parametrize("timeout", (None, 300.0))
def test_ctrl_c_for_all_of_a_group(timeout: float | None, lock: pylocks.TicketLock) -> None:
    with troupe("fork", lock) as made:
        waiters = made.puppets(3)
        lock.acquire()
        made.queue(waiters, tasks.acquire, True, timeout)
        for waiter in waiters:
            waiter.interrupt(signal.SIGINT)
        for waiter in waiters:
            with pytest.raises(KeyboardInterrupt):
                waiter.finish()
        # Who is first in the queue of a bounded lock leaves it to the next, without a tombstone.
        assert tombstones(lock) == 3 if lock.policy == "fifo" else 1 <= tombstones(lock) <= 3
        lock.release()
        assert (lock.locked(), tombstones(lock)) == (False, 0)
        for waiter in waiters:
            assert waiter.call(tasks.acquire, False) is True
            waiter.call(tasks.release)


def test_a_thread_waits_on_while_the_main_thread_handles_signals(lock: pylocks.TicketLock) -> None:
    rung: list[int] = []
    with troupe("threads", lock) as made, handler(signal.SIGUSR1, lambda: rung.append(lock.waiters)):
        waiters = made.puppets(2)
        lock.acquire()
        made.queue(waiters, tasks.acquire)
        for number, waiter in enumerate(waiters):
            signal.pthread_kill(_ident(waiter.tid), signal.SIGUSR1)
            until(lambda number=number: len(rung) > number, "the handler has run")  # type: ignore[misc]
        assert rung == [2, 2]
        assert all(waiter.busy for waiter in waiters)
        lock.release()
        for waiter in waiters:
            assert waiter.finish() is True
            waiter.call(tasks.release)


def _ident(tid: int) -> int:
    return next(t.ident for t in threading.enumerate() if t.native_id == tid and t.ident is not None)


def test_a_stopped_process_goes_on_waiting(lock: pylocks.TicketLock) -> None:
    """SIGSTOP and SIGCONT interrupt system calls, too, but are no reason to leave."""
    with troupe("fork", lock) as made:
        waiter, behind = made.puppets(2)
        lock.acquire()
        mine = lock.ticket
        made.queue([waiter, behind], tasks.acquire)
        for _ in range(3):
            waiter.interrupt(signal.SIGSTOP)
            waiter.interrupt(signal.SIGCONT)
        waiter.interrupt(signal.SIGSTOP)
        lock.release()
        assert lock.ticket == mine + 1
        assert behind.busy
        waiter.interrupt(signal.SIGCONT)
        assert waiter.finish() is True
        waiter.call(tasks.release)
        assert behind.finish() is True
        behind.call(tasks.release)


DEPTH = 7  # PLK_PEND_DEPTH: waits that a thread's slot can keep while handlers run


@pytest.mark.parametrize("levels", (DEPTH, DEPTH + 1))
def test_handlers_that_wait_in_handlers_that_wait(levels: int, name: str) -> None:
    """Each level waits for a lock of its own; one level too many is an error, not a lost lock."""
    domain = pylocks.Domain(name)
    locks = [domain.lock(f"level {level}") for level in range(levels + 1)]
    entered: list[int] = []
    refused: list[int] = []
    level = 0

    def next_level() -> None:
        nonlocal level
        if level == levels:
            return
        level += 1
        mine = level
        try:
            with locks[mine]:
                entered.append(mine)
        except RecursionError:
            refused.append(mine)

    with troupe("threads", locks[0]) as made, handler(signal.SIGUSR1, next_level):
        holders = [made.guest(lock=each) for each in locks]
        for holder in holders:
            holder.call(tasks.acquire)

        def conduct() -> None:
            for each in locks[:-1]:
                until(lambda each=each: each.waiters == 1, "the main thread waits there")  # type: ignore[misc]
                os.kill(os.getpid(), signal.SIGUSR1)
            last = locks[-1]
            if levels == DEPTH:
                until(lambda: last.waiters == 1, "the main thread is at the deepest level")
            else:
                until(lambda: refused, "the deepest level is refused")
            for holder in reversed(holders):
                holder.call(tasks.release)

        conductor = threading.Thread(target=conduct)
        conductor.start()
        with locks[0]:
            pass
        conductor.join()
    if levels == DEPTH:
        assert (sorted(entered), refused) == (list(range(1, levels + 1)), [])
    else:
        # The signal that could not be handled at the deepest level is, once that has been refused.
        assert DEPTH in refused
        assert set(range(1, DEPTH)) <= set(entered)
    assert not any(each.locked() for each in locks)
    assert [v.held for v in domain.vcpus() if v.tid == threading.get_native_id()] == [0]


STORM = """
import os, signal, sys, threading, pylocks
from support import tasks
from support.puppet import troupe

class Ring(Exception): pass
armed = False
def ring(*_):
    global armed
    if armed:
        armed = False
        raise Ring
signal.signal(signal.SIGUSR1, ring)
tally = tasks.Tally.create(__import__("pathlib").Path(sys.argv[1]))
lock = pylocks.TicketLock()
interrupted = entered = 0
with troupe(sys.argv[2], lock) as made:
    laps, signals = made.puppets(2)
    laps.start(tasks.laps, sys.argv[1], 150)
    signals.start(tasks.send_signals, os.getpid(), signal.SIGUSR1, sys.argv[1] + ".end")
    while entered < 150 or not interrupted:  # the sender may get no CPU for a while
        try:
            armed = True
            lock.acquire(timeout=(-1, 0.0001, 5)[entered % 3])
            armed = False
        except Ring:
            interrupted += 1
        owner = lock.owner
        if owner is not None and owner.tid == threading.get_native_id():
            tally.add()
            entered += 1
            lock.release()
    open(sys.argv[1] + ".end", "w")
    signals.finish()
    laps.finish()
assert tally.value == 150 + entered, tally.value
assert not lock.locked() and lock.acquire(False)
print(interrupted > 0)
"""


def test_a_signal_as_soon_as_a_wait_begins(lock: pylocks.TicketLock) -> None:
    """It comes between the ticket and the sleep, in the first wait that the process ever makes."""
    other = lock.domain.lock("other")

    class Ring(Exception):
        pass

    def ring() -> None:
        with other:
            raise Ring

    def wait() -> bool:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(20)  # which ends the process if nobody hears the other signal
        try:
            return not lock.acquire()
        except Ring:
            return True

    with handler(signal.SIGUSR1, ring), lock:
        for _ in range(100):
            before = lock.waiters
            pid = os.fork()
            if pid == 0:
                try:
                    os._exit(0 if wait() else 1)
                finally:
                    os._exit(2)
            while lock.waiters == before:
                pass
            os.kill(pid, signal.SIGUSR1)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not other.locked()
    assert (lock.locked(), lock.waiters, tombstones(lock)) == (False, 0, 0)


@pytest.mark.parametrize("kind", ("threads", "fork"))
@pytest.mark.parametrize("slow_path", ("futex", "yield", "native"))
def test_signals_race_with_the_turn(slow_path: str, kind: str, tmp_path: Any) -> None:
    settings = run.settings(PYLOCKS_OPS=f"lock_spinning={slow_path}")
    done = run.python("-c", STORM, tmp_path / "tally", kind, environment=settings)
    assert done.check() == "True\n"


USES: dict[str, Callable[[pylocks.TicketLock], object]] = {
    "acquire": lambda lock: lock.acquire(),
    "timed": lambda lock: lock.acquire(timeout=300),
    "with": lambda lock: lock.__enter__(),
    "within": lambda lock: lock.within(300).__enter__(),
}


@pytest.mark.parametrize("use", USES)
def test_an_exception_of_a_handler_comes_out_unchanged(use: str, lock: pylocks.TicketLock) -> None:
    class Ring(Exception):
        pass

    rung = Ring("one", 2)

    def ring() -> None:
        raise rung

    with troupe("threads", lock) as made, handler(signal.SIGUSR1, ring):
        holder, sender = made.puppets(2)
        holder.call(tasks.acquire)
        sender.start(tasks.signal_when_queued, 1, os.getpid(), signal.SIGUSR1)
        with pytest.raises(Ring) as caught:
            USES[use](lock)
        assert caught.value is rung
        assert caught.value.__context__ is None
        sender.finish()
        holder.call(tasks.release)
    assert not lock.locked()
