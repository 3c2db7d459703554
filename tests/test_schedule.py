"""The handshakes of the lock under every schedule that matters, forced and not hoped for.

Between two threads only the order of their accesses to shared memory counts.  explore() stops one
before its i-th access and the other before its j-th, lets the first run on, then the second, for
all i and j: every schedule of the two with at most two switches in mid-operation, which is where
all of these went wrong elsewhere (a waiter that looks before it publishes, a flag cleared while
somebody arrives, a ticket abandoned while it is granted).  What ptrace can't show is a store that
lingers in a store buffer: for that, tests/test_patch.py reads the fences in the machine code.

The handshakes are named as in the code: [K1] and [K2] in csrc/include/pylocks/fast.h, csrc/hv/park.c
and csrc/recover/abandon.c, [S1] in csrc/include/pylocks/fast.h.
"""

from __future__ import annotations

import contextlib
import errno

import pytest
from schedules import (
    ATTEMPTS,
    QUEUE,
    TOMBS,
    Overslept,
    both_ways,
    explore,
    meeting,
    overslept,
    until_served,
)
from staging import CELL, Staging, idle

from pylocks.ops import choices

pytest_plugins = ["stage_fixtures"]


BARRIERS = pytest.mark.parametrize(
    "barrier",
    [
        pytest.param(
            choice.name,
            marks=[] if choice.available else pytest.mark.skip(f"{choice.name} is not available here"),
        )
        for choice in choices("unlock_barrier")
        if choice.protocol != "native"
    ],
)
"""Who orders head before slow, unlockers or waiters: the waiters' code differs."""


@BARRIERS
def test_no_kick_is_lost_between_looking_and_sleeping(stage: Staging, barrier: str) -> None:
    """[K1] An unlock anywhere on a waiter's way to sleep is seen by it, or wakes it."""
    s = stage(2, PYLOCKS_OPS=f"unlock_barrier={barrier}")
    holder, waiter = s.parties

    def prepare() -> None:
        assert holder.ask("stepping.take(0)") == 0
        assert waiter.ask("stepping.take(0)") == 1

    def conclude() -> None:
        assert holder.end() == 0
        assert waiter.end() == 0
        assert waiter.ask("stepping.unlock(0)") == 0
        idle(s)
        overslept(waiter)

    both_ways(s.words, QUEUE, waiter, "turn(0)", holder, "unlock(0)", prepare, conclude)


def test_no_ticket_is_lost_between_leaving_and_being_served(stage: Staging) -> None:
    """[K2] A ticket abandoned while it is granted is passed over once; the next in line wakes."""
    s = stage(3)
    holder, leaver, behind = s.parties

    def prepare() -> None:
        assert holder.ask("stepping.take(0)") == 0
        assert leaver.ask("stepping.take(0)") == 1
        assert behind.ask("stepping.take(0)") == 1
        behind.begin("turn(0)")
        assert not behind.sleep_or_end()

    def conclude() -> None:
        assert holder.end() == 0
        assert leaver.end() in (0, 1)
        assert behind.end() == 0
        assert behind.ask("stepping.unlock(0)") == 0
        idle(s)
        overslept(behind)

    both_ways(s.words, TOMBS, leaver, "leave(0)", holder, "unlock(0)", prepare, conclude)


def test_the_last_in_the_queue_leaves_while_it_is_served(stage: Staging) -> None:
    """[K2] With nobody behind the leaver the lock is free afterwards."""
    s = stage(2)
    holder, leaver = s.parties

    def prepare() -> None:
        assert holder.ask("stepping.take(0)") == 0
        assert leaver.ask("stepping.take(0)") == 1

    def conclude() -> None:
        assert holder.end() == 0
        assert leaver.end() in (0, 1)
        idle(s)

    both_ways(s.words, TOMBS, leaver, "leave(0)", holder, "unlock(0)", prepare, conclude)


def test_coming_back_while_the_ticket_is_passed_over(stage: Staging) -> None:
    """[K2] A leaver has its ticket back, or it was passed over: never both, never neither."""
    s = stage(2)
    holder, leaver = s.parties
    outcomes = set()

    def prepare() -> None:
        assert holder.ask("stepping.take(0)") == 0
        assert leaver.ask("stepping.take(0)") == 1
        assert leaver.ask("stepping.leave(0)") == 0

    def conclude() -> None:
        assert holder.end() == 0
        back = leaver.end()
        if back:
            assert leaver.ask("stepping.turn(0)") == 0
            assert leaver.ask("stepping.unlock(0)") == 0
        outcomes.add(back)
        idle(s)

    both_ways(s.words, TOMBS, leaver, "resume(0)", holder, "unlock(0)", prepare, conclude)
    assert outcomes == {0, 1}


def test_an_abandoned_ticket_is_passed_over_by_one_party_only(stage: Staging) -> None:
    """[K2] The unlocker and a watchful waiter both find the tombstone; the queue moves by one."""
    s = stage(3)
    holder, leaver, waiter = s.parties

    def prepare() -> None:
        assert holder.ask("stepping.take(0)") == 0
        assert leaver.ask("stepping.take(0)") == 1
        assert waiter.ask("stepping.take(0)") == 1
        assert leaver.ask("stepping.leave(0)") == 0

    def conclude() -> None:
        assert holder.end() == 0
        assert waiter.end() == 0
        assert s.words.read(CELL)["head"] == waiter.ask("stepping.ticket(0)")
        assert waiter.ask("stepping.turn(0)") == 0
        assert waiter.ask("stepping.unlock(0)") == 0
        idle(s)

    both_ways(s.words, TOMBS, waiter, "watch(0)", holder, "unlock(0)", prepare, conclude)


def test_who_passes_over_a_ticket_too_late_moves_nothing_back(stage: Staging) -> None:
    """[K2] Stopped half-way and overtaken by another passer, and by the next holder's release."""
    s = stage(4)
    holder, leaver, behind, watcher = s.parties

    def prepare() -> None:
        for party, queued in ((holder, 0), (leaver, 1), (behind, 1), (watcher, 1)):
            assert party.ask("stepping.take(0)") == queued
        assert leaver.ask("stepping.leave(0)") == 0
        until_served(holder, s)

    def between() -> None:
        assert holder.end() == 0
        assert behind.ask("stepping.turn(0)") == 0
        assert behind.ask("stepping.unlock(0)") == 0

    def conclude() -> None:
        assert watcher.end() == 0
        assert s.words.read(CELL)["head"] == watcher.ask("stepping.ticket(0)")
        assert watcher.ask("stepping.turn(0)") == 0
        assert watcher.ask("stepping.unlock(0)") == 0
        idle(s)

    schedules = explore(s.words, TOMBS, watcher, "watch(0)", watcher, "", prepare, conclude, between)
    assert len(schedules) >= 8


@BARRIERS
def test_the_holder_clears_slow_while_others_arrive(stage: Staging, barrier: str) -> None:
    """[S1] The last of a contended episode clears slow in its unlock; of two arrivals none is lost.

    The first of them is kicked as the next in line; the second depends on the flag alone, which it
    may have found set just before it was cleared.
    """
    s = stage(3, PYLOCKS_OPS=f"unlock_barrier={barrier}")
    holder, newcomer, second = s.parties

    def prepare() -> None:
        assert holder.ask("stepping.take(0)") == 0
        s.words.put32(s.words.cell(CELL, "slow"), 2)  # as a waiter leaves it that has had its turn

    def between() -> None:
        newcomer.begin("acquire(0)")
        newcomer.sleep_or_end()

    def conclude() -> None:
        assert holder.end() == 0
        assert newcomer.end() == 0
        assert not second.sleep_or_end(), "two are inside"
        assert s.words.read(CELL)["slow"] != 0, "slow was cleared behind the back of a sleeper"
        assert newcomer.ask("stepping.unlock(0)") == 0
        assert second.end() == 0
        assert second.ask("stepping.unlock(0)") == 0
        idle(s)
        overslept(newcomer, second)

    schedules = explore(s.words, QUEUE, holder, "unlock(0)", second, "acquire(0)", prepare, conclude, between)
    assert len({a for a, _ in schedules}) >= 8


def test_only_the_holder_clears_slow(stage: Staging) -> None:
    """[S1] What is left of an unlock after its head store does not clear the flag of its successors.

    Wherever the unlock stops after that, the next holder comes and a waiter falls asleep behind it;
    the unlock goes on by some accesses, and then the next holder releases: it must kick the waiter.
    """
    s = stage(3)
    holder, newcomer, second = s.parties
    matters = meeting(s.words, QUEUE)

    def attempt(stop: int, further: int) -> tuple[bool, bool]:
        """Whether the unlock got as far as its first and its second stop."""
        assert holder.ask("stepping.take(0)") == 0
        s.words.put32(s.words.cell(CELL, "slow"), 2)
        until_served(holder, s)
        first = len(holder.pass_accesses(stop, matters)) == stop
        assert newcomer.ask("stepping.acquire(0)") == 0
        second.begin("acquire(0)")
        assert not second.sleep_or_end(), "two are inside"
        then = len(holder.pass_accesses(further, matters)) == further
        assert newcomer.ask("stepping.unlock(0)") == 0
        assert second.end() == 0
        assert holder.end() == 0
        assert second.ask("stepping.unlock(0)") == 0
        idle(s)
        overslept(second)
        return first, then

    def persist(stop: int, further: int) -> tuple[bool, bool]:
        for _ in range(ATTEMPTS):
            with contextlib.suppress(Overslept):
                return attempt(stop, further)
        raise AssertionError(f"{stop}, {further}: the watchdog ended the sleep again and again")

    stop = 0
    while persist(stop, 0)[0]:
        further = 1
        while persist(stop, further)[1]:
            further += 1
        stop += 1
    assert stop >= 2


def test_only_one_gets_in(stage: Staging) -> None:
    """A try and an arrival on a free lock: one of them is inside, the other knows that it is not."""
    s = stage(2)
    one, other = s.parties

    def conclude() -> None:
        tried, took = one.end(), other.end()
        assert (tried, took) in ((0, 1), (-errno.EBUSY, 0))
        inside, queued = (one, other) if tried == 0 else (other, None)
        assert inside.ask("stepping.unlock(0)") == 0
        if queued is not None:
            assert queued.ask("stepping.turn(0)") == 0
            assert queued.ask("stepping.unlock(0)") == 0
        idle(s)

    both_ways(s.words, QUEUE, one, "try_take(0)", other, "take(0)", lambda: None, conclude)


# ------------------------------------------------------- one party stands still or dies


def test_a_waiter_whose_kicker_stands_still_is_woken_by_its_watchdog(stage: Staging) -> None:
    s = stage(2)
    holder, waiter = s.parties
    assert holder.ask("stepping.take(0)") == 0
    waiter.begin("acquire(0)")
    assert not waiter.sleep_or_end()
    until_served(holder, s)
    assert waiter.end() == 0
    assert waiter.overslept
    assert holder.end() == 0
    assert waiter.ask("stepping.unlock(0)") == 0
    idle(s)


def test_a_kick_that_comes_late_finds_the_cell_used_by_another_lock(stage: Staging) -> None:
    """Between an unlocker's head store and its kick the lock may be freed, and its cell reused."""
    s = stage(2)
    holder, owner = s.parties
    owner.define("mine = pylocks.TicketLock(domain=domain)")
    index = owner.ask("mine.index")
    assert holder.ask(f"stepping.bind(domain.address, {index})") == 1
    assert holder.ask("stepping.take(1)") == 0
    s.words.put32(s.words.cell(index, "slow"), 1)
    holder.begin("unlock(1)")
    while s.words.read(index)["head"] == 0:
        assert len(holder.pass_accesses(1, meeting(s.words, QUEUE))) == 1

    owner.define("del mine")
    owner.define("other = pylocks.TicketLock(domain=domain)")
    assert owner.ask("(other.index, other.acquire())") == [index, True]
    before = s.words.read(index)
    assert holder.end() == 0
    after = s.words.read(index)
    assert {**after, "slow": before["slow"]} == before
    assert owner.ask("(other.owner is not None, other.release(), other.locked())") == [True, None, False]


def test_passing_over_a_ticket_survives_the_death_of_who_does_it(stage: Staging) -> None:
    """[K2] Killed between any two steps of an unlock, once it has let go: those behind go on."""
    stop = 0
    died = True
    while died:
        s = stage(3)
        holder, leaver, waiter = s.parties
        assert holder.ask("stepping.take(0)") == 0
        assert leaver.ask("stepping.take(0)") == 1
        assert leaver.ask("stepping.leave(0)") == 0
        waiter.begin("acquire(0)")
        assert not waiter.sleep_or_end()
        matters = meeting(s.words, TOMBS)
        until_served(holder, s)
        holder.pass_accesses(stop, matters)
        died = not holder.ended
        if died:
            holder.kill()
        else:
            assert holder.end() == 0
        assert waiter.end() == 0
        assert waiter.ask("stepping.try_take(0)") == -errno.EBUSY
        assert waiter.ask("stepping.unlock(0)") == 0
        assert waiter.ask("stepping.try_pair(0)") == 0
        cell = s.words.read(CELL)
        assert cell["head"] == cell["tail"]
        stop += 1
        s.close()
    assert stop >= 6
