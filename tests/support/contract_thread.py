"""The contract: signals that come during a wait, and the other threads of a waiting process."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from typing import Any

import pylocks
from support import tasks
from support.clauses import Ring, clause, raises, ring
from support.stage import Stage, busy_thread, handler
from support.wait import until

# ------------------------------------------------------------------ signals


def _interrupted(stage: Stage, number: int, timeout: float | None) -> None:
    """The main thread waits, another behind it, until a signal that raises."""
    _, path = stage.tally()
    holder, sender, behind = stage.troupe.puppets(3)
    holder.call(tasks.acquire)
    kind = KeyboardInterrupt if number == signal.SIGINT else Ring
    if stage.native and timeout is not None:  # it polls, and so can't be seen in the queue
        flag = stage.flag()
        sender.start(tasks.signal_after, str(flag), 0.02, os.getpid(), number)

        def wait() -> None:
            flag.touch()
            stage.lock.acquire(timeout=timeout)
    else:
        sender.start(tasks.signal_when_queued, 1, os.getpid(), number)

        def wait() -> None:
            stage.lock.acquire(timeout=timeout)

    raises(kind, wait)
    sender.finish()
    raises(pylocks.NotOwnerError, stage.lock.release)
    behind.start(tasks.visit, path)
    until(lambda: stage.lock.waiters >= 1, "somebody queues behind")
    holder.call(tasks.release)
    assert behind.finish()[0] == 0
    stage.usable()


@clause(one_cpu=True)
def ctrl_c_ends_a_wait(stage: Stage) -> None:
    """KeyboardInterrupt comes out of acquire(), and the queue goes on."""
    _interrupted(stage, signal.SIGINT, None)


@clause()
def ctrl_c_ends_a_timed_wait(stage: Stage) -> None:
    """The same with a timeout that is far off."""
    _interrupted(stage, signal.SIGINT, 300.0)


@clause()
def a_handler_that_raises_ends_a_wait(stage: Stage) -> None:
    """Whatever a handler raises comes out of acquire()."""
    with handler(signal.SIGUSR1, ring):
        _interrupted(stage, signal.SIGUSR1, None)


@clause()
def nothing_remains_of_an_interrupted_wait(stage: Stage) -> None:
    """With nobody behind, the lock is free once its holder lets go: to those who only try, too."""
    holder, sender = stage.troupe.puppets(2)
    holder.call(tasks.acquire)
    sender.start(tasks.signal_when_queued, 1, os.getpid(), signal.SIGINT)
    raises(KeyboardInterrupt, stage.lock.acquire)
    sender.finish()
    holder.call(tasks.release)
    stage.usable()


@clause()
def a_handler_that_returns_costs_no_place(stage: Stage) -> None:
    """After the handler the wait goes on where it was."""
    _, path = stage.tally()
    holder, sender, behind = stage.troupe.puppets(3)
    holder.call(tasks.acquire)
    mine = stage.lock.ticket + 1
    rung = stage.flag()

    def once() -> None:
        """Others queue behind before the wait goes on, and only then is the lock released."""
        if not rung.exists():
            rung.touch()
            stage.troupe.queue([behind], tasks.visit, path)
            holder.start(tasks.release_when_queued, 2)

    with handler(signal.SIGUSR1, once):
        sender.start(tasks.signal_when_queued, 1, os.getpid(), signal.SIGUSR1)
        assert stage.lock.acquire() is True
    assert rung.exists()
    assert stage.lock.ticket == mine
    stage.lock.release()
    holder.finish()
    sender.finish()
    assert behind.finish() == (0, mine + 1)
    stage.usable()


@clause()
def a_handler_may_wait_for_another_lock(stage: Stage) -> None:
    """A wait inside a handler inside a wait: each gets its own lock."""
    other = pylocks.TicketLock()
    holder, sender = stage.troupe.puppets(2)
    other_holder = stage.troupe.guest(lock=other)
    holder.call(tasks.acquire)
    other_holder.call(tasks.acquire)
    mine = stage.lock.ticket + 1
    seen: list[Any] = []

    def wait_for_the_other() -> None:
        if seen:
            return
        seen.append(other.acquire(timeout=0.01))
        other_holder.start(tasks.release_when_queued, 1)
        with other:
            seen.append(stage.lock.waiters)
        holder.start(tasks.release_when_queued, 1)

    with handler(signal.SIGUSR1, wait_for_the_other):
        sender.start(tasks.signal_when_queued, 1, os.getpid(), signal.SIGUSR1)
        assert stage.lock.acquire() is True
    assert seen == [False, 1]
    assert stage.lock.ticket == mine
    stage.lock.release()
    holder.finish()
    sender.finish()
    other_holder.finish()
    assert not other.locked()
    stage.usable()


# ------------------------------------------------------------------ the GIL


@clause(one_cpu=True)
def a_waiting_thread_lets_others_run(stage: Stage) -> None:
    """The holder lets go only when another thread of the waiter's process has computed a while."""
    (holder,) = stage.troupe.puppets(1)
    flag = stage.flag()
    for timeout in (-1, 120.0):
        flag.unlink(missing_ok=True)
        holder.start(tasks.hold_until, str(flag))
        until(stage.lock.locked, "the holder has it")

        def compute() -> None:
            for _ in range(200_000):
                pass
            flag.touch()

        sibling = threading.Thread(target=compute)
        sibling.start()
        assert stage.lock.acquire(True, timeout) is True
        stage.lock.release()
        sibling.join()
        holder.finish()
    stage.usable()


@clause(one_cpu=True)
def a_sibling_thread_may_be_the_holder(stage: Stage) -> None:
    """The main thread waits for a lock that another thread of its own process releases."""
    puppets = stage.troupe.puppets(1)
    _, path = stage.tally()
    for _ in range(5):
        inside = threading.Event()

        def hold(inside: threading.Event = inside) -> None:
            with stage.lock:
                inside.set()
                until(lambda: stage.lock.waiters >= 1, "the main thread waits")

        sibling = threading.Thread(target=hold)
        sibling.start()
        inside.wait()
        puppets[0].start(tasks.visit, path)
        with stage.lock:
            pass
        sibling.join()
        puppets[0].finish()
    stage.usable()


@clause()
def a_busy_sibling_does_not_starve(stage: Stage) -> None:
    """Contention for the lock leaves a computing thread of the same process its share."""
    tally, path = stage.tally()
    (puppet,) = stage.troupe.puppets(1)
    with busy_thread() as done:
        puppet.start(tasks.laps, path, 30)
        shares = []
        for _ in range(30):
            before = done[0]
            with stage.lock:
                tally.add()
            until(lambda before=before: done[0] > before, "the busy thread moves on")  # type: ignore[misc]
            shares.append(done[0] - before)
        puppet.finish()
    assert tally.value == 60
    stage.usable()


@clause()
def many_threads_of_one_process_queue_too(stage: Stage) -> None:
    """A process with several waiting threads among others."""
    tally, path = stage.tally()
    with ExitStack() as stack:
        stack.enter_context(busy_thread())
        threads = [stage.troupe.guest("threads") for _ in range(3)]
        others = stage.troupe.puppets(1)
        for puppet in threads + others:
            puppet.start(tasks.laps, path, 15)
        for puppet in threads + others:
            puppet.finish()
    assert tally.value == 60
    stage.usable()
