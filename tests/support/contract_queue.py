"""The contract: order, exclusion, owners, and waits that end early."""

from __future__ import annotations

import os
import threading
import time

import pylocks
from support import tasks
from support.clauses import Ring, clause, raises, ring
from support.stage import Stage
from support.wait import until

# ------------------------------------------------------------------ order and exclusion


@clause(one_cpu=True)
def excludes(stage: Stage) -> None:
    """Nobody comes between the two halves of another's critical section."""
    tally, path = stage.tally()
    puppets = stage.troupe.puppets(3)
    for puppet in puppets:
        puppet.start(tasks.laps, path, 40)
    visits = sorted(visit for puppet in puppets for visit in puppet.finish())
    assert tally.value == len(visits) == 120
    # Those who entered in this order were served in this order, and no ticket was left out.
    assert [ticket - visits[0][1] for _, ticket in visits] == list(range(120))
    stage.usable()


@clause(one_cpu=True)
def serves_in_order(stage: Stage) -> None:
    """Who queued first is served first."""
    _, path = stage.tally()
    puppets = stage.troupe.puppets(4)
    stage.lock.acquire()
    mine = stage.lock.ticket
    stage.troupe.queue(puppets, tasks.visit, path)
    assert stage.lock.ticket == mine
    stage.lock.release()
    assert [puppet.finish() for puppet in puppets] == [(i, mine + 1 + i) for i in range(4)]
    stage.usable()


@clause(one_cpu=True)
def hands_over(stage: Stage) -> None:
    """A waiter is served however deeply it waits when its turn comes."""
    _, path = stage.tally()
    (puppet,) = stage.troupe.puppets(1)
    for turn in range(20):
        stage.lock.acquire()
        stage.troupe.queue([puppet], tasks.visit, path)
        if stage.lock.domain.slow_path == "futex" and turn % 2:
            until(lambda: stage.parked() == 1, "the waiter sleeps")
        stage.lock.release()
        assert puppet.finish()[0] == turn
    stage.usable()


@clause()
def more_participants_than_cpus(stage: Stage) -> None:
    """The queue moves on when most of its members can't be running."""
    tally, path = stage.tally()
    puppets = stage.troupe.puppets(min(4 * (os.cpu_count() or 1), 12))
    for puppet in puppets:
        puppet.start(tasks.laps, path, 5)
    visits = [puppet.finish() for puppet in puppets]
    assert [len(visit) for visit in visits] == [5] * len(puppets)
    assert tally.value == 5 * len(puppets)
    stage.usable()


# ------------------------------------------------------------------ without waiting, or not for ever


@clause()
def does_not_block(stage: Stage) -> None:
    """acquire(blocking=False) says at once what is, and leaves no trace in the queue."""
    (puppet,) = stage.troupe.puppets(1)
    assert puppet.call(tasks.acquire, False) is True
    before = stage.lock.ticket
    for arguments in ((False,), (True, 0)):
        assert stage.lock.acquire(*arguments) is False
    assert (stage.lock.ticket, stage.lock.waiters, stage.lock.locked()) == (before, 0, True)
    puppet.call(tasks.release)
    assert stage.lock.acquire(False) is True
    assert stage.lock.ticket == before + 1
    stage.lock.release()
    stage.usable()


@clause(one_cpu=True)
def never_gives_up_early(stage: Stage) -> None:
    """A timed acquire lasts as long as was asked, and everything works afterwards."""
    (puppet,) = stage.troupe.puppets(1)
    puppet.call(tasks.acquire)
    for timeout in (0.0005, 0.02, 0.12):
        began = time.monotonic()
        assert stage.lock.acquire(timeout=timeout) is False
        assert time.monotonic() - began >= timeout
    raises(pylocks.NotOwnerError, stage.lock.release)
    puppet.call(tasks.release)
    stage.usable()
    assert puppet.call(tasks.acquire, True, 30.0) is True
    puppet.call(tasks.release)


@clause()
def a_leaver_is_passed_over(stage: Stage) -> None:
    """Who gives up in the middle of the queue does not hold up those behind."""
    _, path = stage.tally()
    early, leaver, late = stage.troupe.puppets(3)
    stage.lock.acquire()
    stage.troupe.queue([early], tasks.visit, path)
    leaver.start(tasks.acquire, True, 0.05)
    if not stage.native:
        until(lambda: stage.lock.waiters == 2 or not leaver.busy, "the leaver queues")
    late.start(tasks.visit, path)
    assert leaver.finish() is False
    until(lambda: stage.lock.waiters >= 2, "the late one queues")
    stage.lock.release()
    assert (early.finish()[0], late.finish()[0]) == (0, 1)
    stage.usable()


@clause(native=False, bounded=False)
def keeps_the_place_of_one_who_polls(stage: Stage) -> None:
    """Who comes back before it is passed over has the ticket that it left."""
    _, path = stage.tally()
    poller, other = stage.troupe.puppets(2)
    poller_tid = poller.call(tasks.native_id)
    stage.lock.acquire()
    mine = stage.lock.ticket
    poller.start(tasks.poll, path, 0.01, 30.0)
    until((stage.folder / (path + ".left")).exists, "the poller has left")
    stage.troupe.queue([other], tasks.visit, path)
    (stage.folder / (path + ".back")).touch()
    until(
        lambda: any(
            v.tid == poller_tid and v.ticket == mine + 1 and v.waiting_since is not None
            for v in stage.lock.domain.vcpus()
        ),
        "the poller is back at its ticket",
    )
    assert stage.lock.waiters == 2
    stage.lock.release()
    assert (poller.finish(), other.finish()) == ((0, mine + 1), (1, mine + 2))
    stage.usable()


@clause(one_cpu=True)
def leaving_races_with_the_turn(stage: Stage) -> None:
    """Timeouts that fall together with the turn lose neither the lock nor a place behind."""
    tally, path = stage.tally()
    puppets = stage.troupe.puppets(3)
    for seed, puppet in enumerate(puppets[:2]):
        puppet.start(tasks.restless, path, 150, seed)
    puppets[2].start(tasks.laps, path, 30)
    entered = [puppet.finish() for puppet in puppets]
    assert tally.value == entered[0] + entered[1] + 30
    stage.usable()


# ------------------------------------------------------------------ owners


@clause()
def only_the_owner_releases(stage: Stage) -> None:
    """release() by another, or of a free lock, is refused and changes nothing."""
    (puppet,) = stage.troupe.puppets(1)
    raises(pylocks.NotOwnerError, stage.lock.release)
    raises(pylocks.NotOwnerError, puppet.call, tasks.release)
    stage.lock.acquire()
    error = raises(pylocks.NotOwnerError, puppet.call, tasks.release)
    for number in (os.getpid(), threading.get_native_id()):
        assert str(number) in str(error)
    owner = stage.lock.owner
    assert owner is not None
    assert (owner.pid, owner.tid, owner.alive) == (os.getpid(), threading.get_native_id(), True)
    stage.lock.release()
    stage.usable()


@clause()
def the_owner_is_told_that_it_has_it(stage: Stage) -> None:
    """A second acquire by the owner is refused, and leaves nothing behind in the queue."""
    _, path = stage.tally()
    (behind,) = stage.troupe.puppets(1)
    stage.lock.acquire()
    mine = stage.lock.ticket
    for arguments in ((), (True, 0.5)):
        raises(pylocks.AlreadyOwnerError, stage.lock.acquire, *arguments)
    raises(pylocks.AlreadyOwnerError, stage.lock.__enter__)
    assert stage.lock.acquire(False) is False
    assert (stage.lock.locked(), stage.lock.ticket) == (True, mine)
    waiting = stage.lock.waiters
    behind.start(tasks.visit, path)
    until(lambda: stage.lock.waiters > waiting, "somebody queues behind")
    stage.lock.release()
    assert behind.finish()[0] == 0
    stage.usable()
    # ... and with nobody behind
    stage.lock.acquire()
    raises(pylocks.AlreadyOwnerError, stage.lock.acquire)
    stage.lock.release()
    stage.usable()


@clause()
def a_body_that_raises_releases(stage: Stage) -> None:
    """`with` lets go whatever happens inside."""
    (puppet,) = stage.troupe.puppets(1)

    def body() -> None:
        with stage.lock:
            assert puppet.call(tasks.acquire, False) is False
            ring()

    def body_within() -> None:
        with stage.lock.within(30):
            ring()

    for each in (body, body_within):
        raises(Ring, each)
        assert puppet.call(tasks.acquire, False) is True
        puppet.call(tasks.release)
    stage.usable()
