"""The contract: the death of participants, whatever they were at and however they die."""

from __future__ import annotations

import os
import signal
import time
import warnings
from collections.abc import Callable

import pylocks
from support import tasks
from support.clauses import clause
from support.puppet import Puppet
from support.stage import Stage
from support.wait import until


def _victim(stage: Stage, kind: str = "fork") -> Puppet:
    """A process that may die."""
    return stage.troupe.guest("fork" if kind == "threads" else kind)


def _place(puppet: Puppet, lock: pylocks.TicketLock) -> int | None:
    """The ticket with which the puppet's thread waits for the lock."""
    waiting = (v for v in lock.domain.vcpus() if v.tid == puppet.tid and v.waiting_for == lock.index)
    return next((v.ticket for v in waiting), None)


def _within_some_tries(attempt: Callable[[], bool]) -> bool:
    """They last two seconds together, but are counted: a slow machine makes each slower."""
    for _ in range(1000):
        if attempt():
            return True
        time.sleep(0.001)
    return False


@clause(one_cpu=True)
def the_next_in_line_succeeds_a_killed_holder(stage: Stage) -> None:
    """It is told of the death; those behind it are not, once it has put things in order."""
    puppets = stage.troupe.puppets(2)
    for timeout in (None, 300.0):
        victim = _victim(stage, stage.troupe.kind)
        victim.call(tasks.acquire)
        mine = stage.lock.ticket
        heirs = puppets
        if stage.native and timeout is not None:  # who polls has no place in the queue
            heirs = puppets[:1]
            heirs[0].start(tasks.succeed, timeout)
        else:
            stage.troupe.queue(heirs, tasks.succeed, timeout)
        victim.kill()
        assert [heir.finish() for heir in heirs] == [
            (turn == 0, mine + 1 + turn) for turn in range(len(heirs))
        ]
        stage.usable()


@clause()
def a_try_finds_that_the_holder_was_killed(stage: Stage) -> None:
    """Where nobody waits in the queue: acquire(False) and short timeouts look for themselves."""
    for arguments in ((False,), (True, 0), (True, 0.002)):
        victim = _victim(stage)
        victim.call(tasks.acquire)
        mine = stage.lock.ticket
        assert stage.lock.acquire(*arguments) is False
        victim.kill()
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert _within_some_tries(lambda arguments=arguments: stage.lock.acquire(*arguments))  # type: ignore[misc]
        assert [warning.category for warning in told] == [pylocks.OwnerDiedWarning]
        assert stage.lock.owner_died
        assert mine < stage.lock.ticket <= mine + 2
        stage.lock.mark_consistent()
        stage.lock.release()
        stage.usable()


@clause()
def a_look_finds_that_the_holder_was_killed(stage: Stage) -> None:
    """locked() is not true for ever; Domain.recover() leaves nothing of the dead."""
    stage.usable()  # and registered: who is no vCPU does not look after others
    for recover in (False, True):
        victim = _victim(stage)
        victim.call(tasks.acquire)
        assert stage.lock.locked()
        victim.kill()
        if recover:
            stage.lock.domain.recover()
            assert stage.lock.owner is None and not stage.lock.locked()
            assert not any(v.tid == victim.tid for v in stage.lock.domain.vcpus())
        until(lambda: not stage.lock.locked(), "the lock to be free")
        with stage.lock.repair():
            assert stage.lock.owner_died
        stage.usable()


@clause()
def however_the_holder_ends(stage: Stage) -> None:
    """By _exit, at the interpreter's end, by exec, by a fault: the lock is not taken along."""
    for how in tasks.ENDS:
        victim = _victim(stage)
        (heir,) = stage.troupe.puppets(1)
        flag = stage.flag()
        victim.start(tasks.end_holding, how, str(flag))
        until(stage.lock.locked, "the victim holds it")
        heir.start(tasks.succeed, None)
        until(lambda: stage.lock.waiters == 1, "the heir waits")
        flag.touch()
        assert heir.finish()[0] is True, how
        if how == "exec":
            victim.kill()
        else:
            victim.lose()
        stage.usable()


@clause(one_cpu=True)
def a_thread_ends_while_it_holds(stage: Stage) -> None:
    """Its process lives on; the lock is nobody's."""
    victim = _victim(stage)
    (heir,) = stage.troupe.puppets(1)
    flag = stage.flag()
    victim.start(tasks.end_thread_holding, str(flag))
    until(stage.lock.locked, "the victim's thread holds it")
    heir.start(tasks.succeed, None)
    until(lambda: stage.lock.waiters == 1, "the heir waits")
    flag.touch()
    assert heir.finish()[0] is True
    victim.finish()
    with stage.lock:
        assert victim.call(tasks.acquire, False) is False
    assert victim.call(tasks.acquire, False) is True
    victim.call(tasks.release)
    stage.usable()


@clause()
def a_holder_dies_and_its_child_lives(stage: Stage) -> None:
    """What it forked while it held is no holder, and no hindrance."""
    victim = _victim(stage)
    (heir,) = stage.troupe.puppets(1)
    child = victim.call(tasks.fork_holding)
    try:
        heir.start(tasks.succeed, None)
        until(lambda: stage.lock.waiters == 1, "the heir waits")
        victim.kill()
        assert heir.finish()[0] is True
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
    stage.usable()


@clause(one_cpu=True)
def a_killed_waiter_is_passed_over(stage: Stage) -> None:
    """At the head of the queue, in its midst and at its end; nobody is told, for nobody was inside."""
    heirs = stage.troupe.puppets(2)
    victims = [_victim(stage) for _ in range(3)]
    stage.lock.acquire()
    mine = stage.lock.ticket
    line = [victims[0], heirs[0], victims[1], heirs[1], victims[2]]
    stage.troupe.queue(line, tasks.succeed, None)
    for victim in victims:
        victim.kill()
    stage.lock.release()
    found = [heir.finish() for heir in heirs]
    if stage.bounded:  # of the gate's tickets the dead had one at most
        assert [died for died, _ in found] == [False, False]
        assert mine < found[0][1] < found[1][1] <= mine + 3
    else:
        assert found == [(False, mine + 2), (False, mine + 4)]
    stage.usable()


@clause()
def all_waiters_are_killed(stage: Stage) -> None:
    """And with nobody there to notice, who comes next finds the lock free."""
    victims = [_victim(stage) for _ in range(3)]
    stage.lock.acquire()
    stage.troupe.queue(victims, tasks.acquire)
    for victim in victims:
        victim.kill()
    stage.lock.release()
    stage.usable()


@clause()
def holder_and_waiters_are_killed_together(stage: Stage) -> None:
    """All but the last in line."""
    (heir,) = stage.troupe.puppets(1)
    victims = [_victim(stage) for _ in range(4)]
    victims[0].call(tasks.acquire)
    mine = stage.lock.ticket
    stage.troupe.queue([*victims[1:], heir], tasks.succeed, None)
    for victim in victims[1:]:  # so that none is let in by the first one's death and repairs
        victim.interrupt(signal.SIGSTOP)
    for victim in victims:
        victim.interrupt(signal.SIGKILL)
    for victim in victims:
        victim.kill()
    died, ticket = heir.finish()
    assert died and (mine < ticket <= mine + 4 if stage.bounded else ticket == mine + 4)
    stage.usable()


@clause(native=False)
def killed_with_an_abandoned_ticket(stage: Stage) -> None:
    """Its tombstone stands for it."""
    _, path = stage.tally()
    (behind,) = stage.troupe.puppets(1)
    victim = _victim(stage)
    stage.lock.acquire()
    mine = stage.lock.ticket
    assert victim.call(tasks.acquire, True, 0.001) is False
    stage.troupe.queue([behind], tasks.visit, path)
    victim.kill()
    stage.lock.release()
    assert behind.finish() == (0, mine + 2)
    stage.usable()


@clause()
def killed_in_a_wait_in_a_wait(stage: Stage) -> None:
    """A signal handler waited for another lock: both queues go on."""
    other = pylocks.TicketLock()
    other.acquire()
    stage.lock.acquire()
    victim, (heir,) = _victim(stage), stage.troupe.puppets(1)
    other_heir = stage.troupe.guest("threads", other)
    victim.start(tasks.wait_in_a_wait, other)
    until(lambda: _place(victim, stage.lock) is not None, "the victim waits")
    stage.troupe.queue([heir], tasks.succeed, None)
    victim.interrupt(signal.SIGUSR1)
    until(lambda: _place(victim, other) is not None, "its handler waits")
    other_heir.start(tasks.succeed, None)
    until(lambda: other.waiters == 2, "the other's heir waits")
    victim.kill()
    stage.lock.release()
    other.release()
    assert (heir.finish()[0], other_heir.finish()[0]) == (False, False)
    stage.usable()
    assert not other.locked()
