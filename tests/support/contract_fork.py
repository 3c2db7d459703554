"""The contract: fork in every state of the forking process."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable

import pylocks
from support import tasks
from support.child import in_child
from support.clauses import Ring, clause, raises
from support.stage import Stage, handler
from support.wait import until

KILLED = (False, True)
"""How the child ends: by _exit, or by SIGKILL."""


def _others_lock(stage: Stage) -> tuple[bool, bool, bool]:
    """In a child: the lock is somebody else's, and stays so; a lock of the child's own works."""
    error = raises(pylocks.NotOwnerError, stage.lock.release)
    owner = stage.lock.owner
    assert owner is not None and owner.pid != os.getpid()
    assert str(owner.pid) in str(error)
    own = pylocks.TicketLock(domain=stage.lock.domain)
    with own:
        mine = own.owner
        assert mine is not None and (mine.pid, mine.tid) == (os.getpid(), threading.get_native_id())
    return stage.lock.acquire(False), stage.lock.acquire(timeout=0.005), own.locked()


@clause(one_cpu=True)
def a_child_does_not_hold_what_its_parent_holds(stage: Stage) -> None:
    """It can't release it, and its death does not."""
    _, path = stage.tally()
    (behind,) = stage.troupe.puppets(1)
    stage.lock.acquire()
    mine = stage.lock.ticket
    stage.troupe.queue([behind], tasks.visit, path)
    for killed in KILLED:
        assert in_child(lambda: _others_lock(stage), killed) == (False, False, False)
        owner = stage.lock.owner
        assert owner is not None and (owner.pid, owner.tid) == (os.getpid(), threading.get_native_id())
        assert stage.lock.ticket == mine and behind.busy
    stage.lock.release()
    assert behind.finish()[0] == 0
    stage.usable()


@clause()
def a_child_is_not_its_parents_other_threads(stage: Stage) -> None:
    """One of them holds the lock, another waits for it, a third has waited in vain."""
    _, path = stage.tally()
    holder, waiter, leaver = (stage.troupe.guest("threads") for _ in range(3))
    holder.call(tasks.acquire)
    mine = stage.lock.ticket
    assert leaver.call(tasks.acquire, True, 0.005) is False
    stage.troupe.queue([waiter], tasks.visit, path)
    for killed in KILLED:
        assert in_child(lambda: _others_lock(stage), killed) == (False, False, False)
        assert stage.lock.ticket == mine and waiter.busy
    holder.call(tasks.release)
    assert waiter.finish()[0] == 0
    stage.usable()


@clause()
def forks_while_the_main_thread_waits(stage: Stage) -> None:
    """Another thread forks; the child's main thread is that one, and nobody waits in it."""
    (holder,) = stage.troupe.puppets(1)
    holder.call(tasks.acquire)
    answers: list[object] = []

    def fork() -> None:
        until(lambda: stage.lock.waiters == 1, "the main thread waits")
        answers.extend(in_child(lambda: _others_lock(stage), killed) for killed in KILLED)
        holder.call(tasks.release)

    thread = threading.Thread(target=fork)
    thread.start()
    with stage.lock:
        assert answers == [(False, False, False)] * 2
    thread.join()
    stage.usable()


@clause(native=False)
def a_child_has_no_place_that_its_parent_left(stage: Stage) -> None:
    """The parent has its abandoned ticket back after the child has come and gone."""
    (holder,) = stage.troupe.puppets(1)
    holder.call(tasks.acquire)
    mine = stage.lock.ticket + 1
    me = threading.get_native_id()
    for killed in KILLED:
        assert stage.lock.acquire(timeout=0.0005) is False
        assert in_child(lambda: _others_lock(stage), killed) == (False, False, False)

    def release_when_back() -> None:
        until(
            lambda: any(v.tid == me and v.ticket == mine for v in stage.lock.domain.vcpus()),
            "the parent is back at its place",
        )
        holder.call(tasks.release)

    thread = threading.Thread(target=release_when_back)
    thread.start()
    assert stage.lock.acquire(timeout=300) is True
    assert stage.lock.ticket == mine
    stage.lock.release()
    thread.join()
    stage.usable()


@clause()
def forks_among_threads_that_use_the_lock(stage: Stage) -> None:
    """Whatever its parent's threads were at, the child can use the lock as anybody."""
    tally, path = stage.tally()
    rounds, forks = (8, 3) if stage.native else (40, 8)  # each native turn may cost a time slice
    guests = [stage.troupe.guest("threads") for _ in range(2)]
    (puppet,) = stage.troupe.puppets(1)
    for each in (*guests, puppet):
        each.start(tasks.laps, path, rounds)
    for number in range(forks):
        entered = in_child(lambda: len(tasks.laps(stage.lock, path, 3)), killed=number % 2 == 1)
        assert entered == 3
    for each in (*guests, puppet):
        each.finish()
    assert tally.value == 3 * rounds + forks * 3
    stage.usable()


@clause()
def forks_before_anybody_has_used_the_domain(stage: Stage) -> None:
    """Attached, but not registered: child, grandchild and parent each register as themselves."""
    for killed in KILLED:
        with pylocks.Domain(vcpus=8) as domain:
            lock = pylocks.TicketLock(domain=domain)

            def use(lock: pylocks.TicketLock = lock) -> int:
                with lock:
                    owner = lock.owner
                    assert owner is not None and owner.pid == os.getpid()
                    return lock.ticket

            def child(use: Callable[[], int] = use, killed: bool = killed) -> tuple[int, int]:
                return in_child(use, killed), use()

            assert in_child(child, killed) == (0, 1)
            assert use() == 2
            assert not lock.locked()


@clause()
def forks_with_a_domain_closed(stage: Stage) -> None:
    """What the parent closed stays closed; what the child closes stays open in the parent, held or not."""
    closed, open_ = pylocks.Domain(), pylocks.Domain()
    locks = [pylocks.TicketLock(domain=domain) for domain in (closed, open_)]
    for lock in locks:
        with lock:
            pass
    closed.close()
    locks[1].acquire()

    def child() -> None:
        raises(pylocks.ClosedError, locks[0].acquire)
        assert locks[1].acquire(False) is False
        open_.close()
        raises(pylocks.ClosedError, locks[1].release)
        raises(pylocks.ClosedError, locks[1].acquire)

    for killed in KILLED:
        in_child(child, killed)
        raises(pylocks.ClosedError, locks[0].acquire)
        owner = locks[1].owner
        assert owner is not None and owner.pid == os.getpid()
    locks[1].release()
    assert locks[1].acquire(False) is True
    locks[1].release()
    open_.close()


# ------------------------------------------------------------------ in a signal handler, during a wait


def _fork_in_a_wait(stage: Stage, timeout: float | None, parent_raises: bool, child_raises: bool) -> None:
    """The handler forks: each process goes on with its wait, or leaves, as its handler has it."""
    tally, path = stage.tally()
    holder, sender = stage.troupe.puppets(2)
    holder.call(tasks.acquire)
    mine = stage.lock.ticket + 1
    me, children = os.getpid(), list[int]()
    queued = 1 + (not child_raises)  # the parent or its tombstone, and the child

    def fork() -> None:
        if children:
            return
        children.append(os.fork())
        if os.getpid() == me:
            holder.start(tasks.release_when_queued, queued)
        if parent_raises if os.getpid() == me else child_raises:
            raise Ring

    def wait() -> int | None:
        """The ticket with which it entered."""
        try:
            assert stage.lock.acquire(timeout=timeout) is True
        except Ring:
            return None
        tasks.Tally(path).add()
        ticket = stage.lock.ticket
        stage.lock.release()
        return ticket

    with handler(signal.SIGUSR1, fork):
        sender.start(tasks.signal_when_queued, 1, me, signal.SIGUSR1)
        ticket = None
        try:
            ticket = wait()
        finally:
            if os.getpid() != me:
                well = ticket is None if child_raises else ticket == mine + 1
                os._exit(0 if well else 1)
        assert ticket == (None if parent_raises else mine)
        sender.finish()
        holder.finish()
        assert os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1]) == 0
    assert tally.value == (not parent_raises) + (not child_raises)
    stage.usable()


@clause(one_cpu=True)
def a_handler_may_fork_during_a_wait(stage: Stage) -> None:
    """The parent keeps its place, and the child queues up as what it is: another."""
    _fork_in_a_wait(stage, None, False, False)


@clause(native=False)
def a_handler_may_fork_during_a_timed_wait(stage: Stage) -> None:
    """The same with a timeout that is far off."""
    _fork_in_a_wait(stage, 300.0, False, False)


@clause()
def a_child_may_leave_the_wait_in_which_it_was_forked(stage: Stage) -> None:
    """It has no place to give up; its parent's is not touched."""
    _fork_in_a_wait(stage, None, False, True)


@clause()
def a_parent_may_leave_the_wait_in_which_it_forked(stage: Stage) -> None:
    """Its place is passed over, and the child waits on at its own."""
    _fork_in_a_wait(stage, None, True, False)
