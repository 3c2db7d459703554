"""Cycles of waiters: found from outside, and told to one of them where the domain asks for it."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Iterator

import pytest
from conftest import POLICIES, segment_path
from support import circles, header, run
from support.child import in_child
from support.stage import handler
from support.wait import until

import pylocks
from pylocks.deadlocks import Cycle, find

KINDS = ("threads", "fork")


@pytest.fixture
def blind() -> Iterator[pylocks.Domain]:
    """A domain in which nobody is told."""
    with pylocks.Domain() as made:
        yield made


@pytest.fixture
def watchful() -> Iterator[pylocks.Domain]:
    """One in which one of a cycle is."""
    with pylocks.Domain(detect_deadlocks=True) as made:
        yield made


def is_sound(cycle: Cycle, count: int) -> None:
    """It names each lock of a circle twice, in order."""
    members = cycle.members
    assert [member.wants for member in members] == [member.holds for member in members[1:] + members[:1]]
    assert sorted(str(member.holds) for member in members) == circles.names(count)
    assert all(0 <= member.waiting_s < 1000 and not member.queued for member in members)


def who(cycle: Cycle) -> list[tuple[int, int]]:
    return [(member.pid, member.tid) for member in cycle.members]


# ----------------------------------------------------------------- find()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("count", [2, 3])
def test_a_cycle_is_found_and_stands_until_a_member_dies(
    blind: pylocks.Domain, policy: str, count: int
) -> None:
    locks = circles.make(blind, count, policy)
    with circles.puppets("fork", locks, count) as puppets:
        for index, puppet in enumerate(puppets):
            puppet.call(circles.take, index)
        assert find(blind) == []
        for index, puppet in enumerate(puppets):
            puppet.start(circles.take, (index + 1) % count)
        for _ in range(3):
            (cycle,) = circles.found(blind)
            is_sound(cycle, count)
            assert sorted(who(cycle)) == sorted((puppet.pid, puppet.tid) for puppet in puppets)
            assert all(member.process for member in cycle.members)
        members = {member.pid: member for member in cycle.members}
        assert [members[puppet.pid].holds for puppet in puppets] == circles.names(count)
        assert all(puppet.busy for puppet in puppets)
        puppets[0].kill()
        until(lambda: not find(blind), "the cycle to open")
        assert all(puppet.busy for puppet in puppets[1:-1])
        until(lambda: not puppets[-1].busy, "the one who waited for the dead")


def test_a_chain_is_no_cycle_and_who_waits_behind_one_is_no_member(blind: pylocks.Domain) -> None:
    locks = circles.make(blind, 3)
    with circles.puppets("fork", locks, 4) as puppets:
        for index in range(3):
            puppets[index].call(circles.take, index)
        for index in (0, 1):
            puppets[index].start(circles.take, index + 1)
        puppets[3].start(circles.take, 0)
        circles.await_waiters(blind, 3)
        assert find(blind) == []
        puppets[2].start(circles.take, 1)  # 1 and 2 close a cycle; 0 and 3 wait behind it
        (cycle,) = circles.found(blind)
        assert {pid for pid, _ in who(cycle)} == {puppets[1].pid, puppets[2].pid}


def test_two_cycles_are_both_found(blind: pylocks.Domain) -> None:
    locks = circles.make(blind, 4)
    with circles.puppets("fork", locks, 4) as puppets:
        for index, puppet in enumerate(puppets):
            puppet.call(circles.take, index)
        for index, puppet in enumerate(puppets):
            puppet.start(circles.take, index ^ 1)
        pids = [frozenset(pid for pid, _ in who(cycle)) for cycle in circles.found(blind, 2)]
        assert set(pids) == {frozenset(p.pid for p in puppets[:2]), frozenset(p.pid for p in puppets[2:])}


def test_finding_takes_no_slot_and_needs_an_open_domain(blind: pylocks.Domain) -> None:
    def look() -> int:
        assert find(blind) == []
        return len(blind.vcpus())

    assert in_child(look) == 0
    blind.close()
    with pytest.raises(pylocks.ClosedError):
        find(blind)


# ------------------------------------------------------------ DeadlockError


@pytest.mark.parametrize("way", circles.WAYS)
@pytest.mark.parametrize("policy", POLICIES)
def test_the_last_to_come_is_told_and_the_others_go_on(
    watchful: pylocks.Domain, policy: str, way: str
) -> None:
    """It is the one that closes the cycle, as the others have been waiting."""
    count = 3
    locks = circles.make(watchful, count, policy)
    with circles.puppets("threads", locks, count) as puppets:
        for index, puppet in enumerate(puppets):
            puppet.call(circles.take, index)
        for index, puppet in enumerate(puppets[:-1]):
            puppet.start(circles.visit, index + 1, index, way)
            circles.await_waiters(watchful, index + 1)
        assert all(puppet.busy for puppet in puppets[:-1])
        cycle = puppets[-1].call(circles.visit, 0, count - 1, way)
        is_sound(cycle, count)
        assert who(cycle) == [(puppet.pid, puppet.tid) for puppet in (puppets[-1], *puppets[:-1])]
        assert [puppet.finish() for puppet in puppets[:-1]] == [None] * (count - 1)
        assert not any(lock.locked() or lock.waiters for lock in locks)
        assert all(vcpu.held == 0 and vcpu.waiting_since is None for vcpu in watchful.vcpus())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("count", [2, 3])
def test_exactly_one_is_told_however_close_they_come(
    watchful: pylocks.Domain, kind: str, policy: str, count: int
) -> None:
    """They meet after each has its lock, so they want the others' at the same time."""
    rounds = 200
    shared = (circles.make(watchful, count, policy), circles.Meeting(count))
    with circles.puppets(kind, shared, count) as puppets:
        for index, puppet in enumerate(puppets):
            puppet.start(circles.clash, index, (index + 1) % count, rounds)
        refused = [puppet.finish(100) for puppet in puppets]
    # Who has released before the last has come closes no cycle; there is never more than one.
    sums = [sum(each) for each in zip(*refused, strict=True)]
    assert len(sums) == rounds
    assert sums == [1] * rounds


def test_who_would_wait_for_itself_is_told_as_ever(watchful: pylocks.Domain) -> None:
    for policy in POLICIES:
        lock = pylocks.TicketLock(domain=watchful, policy=policy)
        with lock, pytest.raises(pylocks.AlreadyOwnerError):
            lock.acquire()


def test_the_error_names_all_and_travels(watchful: pylocks.Domain) -> None:
    locks = circles.make(watchful, 2)
    with circles.puppets("threads", locks, 1) as (puppet,):
        puppet.call(circles.take, 0)
        with locks[1]:
            puppet.start(circles.visit, 1, 0, "acquire")
            circles.await_waiters(watchful, 1)
            with pytest.raises(pylocks.DeadlockError) as caught:
                locks[0].acquire()
        puppet.finish()
    text = str(caught.value)
    for word in ("lock 0", "lock 1", puppet.tid, os.getpid(), threading.get_native_id()):
        assert str(word) in text
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.cycle) == (text, caught.value.cycle)
    assert isinstance(again, pylocks.PylocksError) and isinstance(again, RuntimeError)
    assert pylocks.DeadlockError("a message").cycle is None


def test_nothing_is_told_where_locks_are_taken_in_order(watchful: pylocks.Domain) -> None:
    """Nor found: what passes is no cycle, however the reads fall."""
    locks = [
        pylocks.TicketLock(domain=watchful, policy=policy) for policy in ("fifo", "bounded", "fifo", "fifo")
    ]
    with circles.puppets("fork", locks, 4) as puppets:
        looks = 0
        while looks < 50:
            for seed, puppet in enumerate(puppets):
                puppet.start(circles.climb, seed, 700)
            while any(puppet.busy for puppet in puppets):
                assert find(watchful) == []
                looks += 1
            assert all(puppet.finish() > 0 for puppet in puppets)
    assert not any(lock.locked() for lock in locks)


SLOW_PATHS = ("native", "yield", "futex")

TWO_THREADS = """
import threading, pylocks
domain = pylocks.Domain(detect_deadlocks=True)
locks = [pylocks.TicketLock(domain=domain) for _ in range(2)]
met, told = threading.Barrier(2), []
def run(own):
    with locks[own]:
        met.wait()
        try:
            with locks[1 - own]:
                pass
        except pylocks.DeadlockError as error:
            told.append(error)
threads = [threading.Thread(target=run, args=(own,)) for own in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(domain.slow_path, len(told))
"""


@pytest.mark.parametrize("slow_path", SLOW_PATHS)
def test_every_slow_path_looks(slow_path: str) -> None:
    done = run.python("-c", TWO_THREADS, environment=run.settings(PYLOCKS_OPS=f"lock_spinning={slow_path}"))
    assert done.check().split() == [slow_path, "1"]


# ------------------------------------------------- waits that were interrupted


def _handler_wants(locks: list[pylocks.TicketLock], wanted: int) -> object:
    """Wait for lock 0, in whose queue a signal handler wants another one; what came of it."""

    def wants() -> None:
        with locks[wanted]:
            pass

    with handler(signal.SIGUSR1, wants):
        try:
            locks[0].acquire()
        except pylocks.DeadlockError as error:
            return error.cycle
    locks[0].release()
    return None


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("detect", [False, True])
def test_a_place_in_a_queue_holds_up_those_behind_it(policy: str, detect: bool) -> None:
    """The one ahead is in a signal handler, which waits for the one behind it."""
    with pylocks.Domain(detect_deadlocks=detect) as domain:
        locks = circles.make(domain, 2, policy)
        with circles.puppets("fork", locks, 2) as (ahead, behind), locks[0]:
            ahead.start(_handler_wants, 1)
            circles.await_waiters(domain, 1)
            until(lambda: locks[0].waiters == 1, "the first to queue")
            behind.call(circles.take, 1)
            behind.start(circles.take, 0)
            until(lambda: locks[0].waiters == 2, "the second to queue")
            assert find(domain) == []
            ahead.interrupt(signal.SIGUSR1)
            if detect:
                cycle = ahead.finish()
            else:
                (cycle,) = circles.found(domain)
                cycle = Cycle(tuple(sorted(cycle.members, key=lambda each: not each.queued)))
            is_queued, holds = cycle.members
            assert (is_queued.pid, is_queued.holds, is_queued.wants) == (ahead.pid, "lock 0", "lock 1")
            assert (holds.pid, holds.holds, holds.wants) == (behind.pid, "lock 1", "lock 0")
            assert is_queued.queued and not holds.queued
            assert "is ahead in the queue of lock 'lock 0'" in str(cycle)


# ------------------------------------------------------------- the setting


def test_the_setting_is_the_domains(name: str) -> None:
    with pylocks.Domain(name, detect_deadlocks=True) as domain:
        assert domain.detects_deadlocks
        assert pylocks.Domain(name).detects_deadlocks
        assert pylocks.Domain(name, detect_deadlocks=True) is domain

        def elsewhere() -> tuple[bool, str]:
            script = (
                "import sys, pylocks\n"
                "print(pylocks.Domain(sys.argv[1]).detects_deadlocks)\n"
                "try: pylocks.Domain(sys.argv[1], detect_deadlocks=False)\n"
                "except ValueError as error: print(error)\n"
            )
            seen, message = run.python("-c", script, name).check().splitlines()
            return seen == "True", message

        seen, message = elsewhere()
        assert seen and name in message and "detect_deadlocks=True, not False" in message
        with pytest.raises(ValueError, match="detect_deadlocks=True, not False"):
            pylocks.Domain(name, detect_deadlocks=False)
    # Whoever comes when all have left may have it another way.
    with pylocks.Domain(name) as domain:
        assert domain.detects_deadlocks
    with pylocks.Domain(name, detect_deadlocks=False) as domain:
        assert not domain.detects_deadlocks
    with pylocks.Domain(name) as domain:
        assert not domain.detects_deadlocks
    with pylocks.Domain() as domain:
        assert not domain.detects_deadlocks


def test_a_setting_that_can_not_be_is_refused(name: str) -> None:
    pylocks.Domain(name).close()
    header.write(segment_path(name), 2, "detects")
    with pytest.raises(pylocks.CorruptDomainError):
        pylocks.Domain(name)
