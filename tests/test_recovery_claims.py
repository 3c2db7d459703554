"""Whose ticket is it?  Recovery of those who died as waiters, under schedules forced as in test_schedule.py.

One party finds a dead vCPU and recovers it, stopped before each of its accesses in turn; another one
does meanwhile what could be mistaken for something the dead had left.  [D1] stands in
csrc/recover/claims.c.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from corpses import LOCK, OWNER_DIED, Corpse, buried
from parties import Party
from schedules import TOMBS, explore_some, slot_of, take, turn_and_release
from staging import CELL, Staging, idle

pytest_plugins = ["stage_fixtures"]

Prepare = Callable[[Party, Party, Corpse], None]


def resumes(holder: Party, other: Party, corpse: Corpse) -> None:
    take(other)
    assert other.ask("stepping.leave(0)") == 0
    corpse.dies_at_its_xadd()


def leaves(holder: Party, other: Party, corpse: Corpse) -> None:
    take(other)
    corpse.dies_at_its_xadd()


def enters(holder: Party, other: Party, corpse: Corpse) -> None:
    take(other)
    corpse.dies_at_its_xadd()
    assert holder.ask("stepping.unlock(0)") == 0


def arrives(holder: Party, other: Party, corpse: Corpse) -> None:
    corpse.dies_at_its_xadd()


def puts_aside(holder: Party, other: Party, corpse: Corpse) -> None:
    take(other)
    corpse.dies_at_its_xadd()


def comes_back(holder: Party, other: Party, corpse: Corpse) -> None:
    take(other)
    assert other.ask("stepping.nest(0)") == 0
    corpse.dies_at_its_xadd()


@pytest.mark.parametrize(
    ("operation", "before"),
    [
        pytest.param("resume(0)", resumes, id="resume"),
        pytest.param("leave(0)", leaves, id="leave"),
        pytest.param("turn(0)", enters, id="enter"),
        pytest.param("take(0)", arrives, id="arrive"),
        pytest.param("nest(0)", puts_aside, id="nest"),
        pytest.param("unnest(0)", comes_back, id="unnest"),
    ],
)
def test_only_the_tickets_of_the_dead_are_eliminated(stage: Staging, operation: str, before: Prepare) -> None:
    """[D1] Whatever a living thread does with its ticket while another looks for a dead one's."""
    s = stage(4)
    corpse = Corpse(s)
    holder, other, watcher = s.parties

    def prepare() -> None:
        take(holder, 0)
        before(holder, other, corpse)
        take(watcher)

    def conclude() -> None:
        assert watcher.end() == 0
        result = other.end()
        if before is not enters:
            assert holder.ask("stepping.unlock(0)") == 0
        if before is puts_aside:
            assert other.ask("stepping.unnest(0)") == 0
        if before is enters:
            assert other.ask("stepping.unlock(0)") == 0
        elif before is arrives:
            turn_and_release(watcher)
        if before not in (enters, leaves) and result >= 0 and not (before is resumes and result == 0):
            turn_and_release(other)
        if before is not arrives:
            turn_and_release(watcher)
        buried(s, corpse)

    explore_some(
        s, TOMBS, watcher, "watch(0)", other, operation, prepare, conclude, slots={slot_of(s, other)}
    )


def test_one_that_died_before_its_xadd_leaves_nothing(stage: Staging) -> None:
    """[D1] There is no orphan: nobody's ticket is taken for one."""
    s = stage(3)
    corpse = Corpse(s)
    holder, watcher = s.parties
    take(holder, 0)
    corpse.dies_at_its_xadd(drawn=False)
    take(watcher)
    assert watcher.ask("stepping.watch(0)") == 0
    assert corpse.buried
    assert s.words.tombs() == 0
    assert holder.ask("stepping.unlock(0)") == 0
    turn_and_release(watcher)
    idle(s)


def test_a_ticket_that_is_served_at_once_is_nobody_elses(stage: Staging) -> None:
    """[D1] It is never noted in the slot; the owner record is all that tells, and comes soon."""
    s = stage(3)
    corpse = Corpse(s)
    arriving, looker = s.parties

    def conclude() -> None:
        assert looker.end() == 0
        assert arriving.end() == 0
        cell = s.words.read(CELL)
        assert cell["head"] == cell["tail"] - 1, "eliminated"
        assert s.words.tombs() == 0
        assert arriving.ask("stepping.unlock(0)") == 0
        buried(s, corpse)

    explore_some(
        s, TOMBS, looker, "look(0)", arriving, "take(0)",
        lambda: corpse.dies_at_its_xadd(drawn=False), conclude, slots={slot_of(s, arriving)},
    )  # fmt: skip


@pytest.mark.parametrize("torn", ["aside", "going aside", "coming back"])
def test_a_wait_that_was_put_aside_is_recovered_too(stage: Staging, torn: str) -> None:
    """[D1] Killed in a signal handler during a wait, or between the stores that lead there or back."""
    s = stage(3)
    corpse = Corpse(s)
    holder, watcher = s.parties
    take(holder, 0)
    ticket = corpse.draw()
    outer = s.words.vcpu(corpse.index, "outer")
    s.words.put64(outer, LOCK)
    s.words.put64(outer + 8, ticket)
    corpse.lie(depth=1, pending=0 if torn == "aside" else LOCK, ticket=ticket)
    take(watcher)
    assert watcher.ask("stepping.watch(0)") == 0
    assert corpse.buried
    assert holder.ask("stepping.unlock(0)") == 0
    turn_and_release(watcher)
    assert not s.words.read(CELL)["flags"] & OWNER_DIED
    idle(s)


def test_an_orphan_overlooked_is_found_by_who_waits_behind_it(stage: Staging) -> None:
    """[D1] A ticket that came to nobody, with no dead slot left to tell of it."""
    s = stage(3)
    corpse = Corpse(s)
    holder, watcher = s.parties
    take(holder, 0)
    corpse.draw()
    take(watcher)
    assert holder.ask("stepping.unlock(0)") == 0
    turn_and_release(watcher)
    idle(s)
