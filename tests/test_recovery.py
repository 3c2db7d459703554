"""The handshakes of recovery under every schedule that matters, forced as in test_schedule.py.

One party finds a dead vCPU and recovers it, stopped before each of its accesses in turn; another one
does meanwhile what could be mistaken for something the dead had left.  [D2] and [D3] stand in
csrc/hv/recovery.c, [D4] in csrc/recover/counts.c; [D1] has test_recovery_claims.py.
"""

from __future__ import annotations

import pytest
from corpses import LOCK, NO_TICKET, OWNER_DIED, Corpse, buried
from schedules import (
    QUEUE,
    SAMPLE,
    TOMBS,
    explore,
    explore_some,
    meeting,
    overslept,
    slot_of,
    take,
    turn_and_release,
)
from staging import CELL, Staging, idle, until

pytest_plugins = ["stage_fixtures"]


# --------------------------------------------------------------------- [D2]


def test_whoever_enters_next_hears_of_the_death(stage: Staging) -> None:
    """[D2] The next in line looks at the lock all the while; it is never inside without the flag."""
    s = stage(4)
    corpse = Corpse(s)
    _, following, watcher = s.parties

    def prepare() -> None:
        corpse.dies_holding()
        take(following)
        take(watcher)

    def conclude() -> None:
        assert watcher.end() == 0
        assert following.end() == 0
        assert s.words.read(CELL)["flags"] & OWNER_DIED
        s.words.put32(s.words.cell(CELL, "flags"), s.words.read(CELL)["flags"] & ~OWNER_DIED)
        assert following.ask("stepping.unlock(0)") == 0
        turn_and_release(watcher)
        assert not s.words.read(CELL)["flags"] & OWNER_DIED
        buried(s, corpse)

    explore_some(s, TOMBS, watcher, "watch(0)", following, "turn(0)", prepare, conclude)


def test_a_release_is_never_taken_for_a_death(stage: Staging) -> None:
    """[D2] The holder lets go, and gives back its slot, while a waiter looks who is inside."""
    s = stage(2)
    holder, watcher = s.parties

    def prepare() -> None:
        take(holder, 0)
        take(watcher)
        s.words.put64(s.words.layout["header.looked_ns"], 0)

    def conclude() -> None:
        assert holder.end() == 0
        assert watcher.end() == 0
        assert not s.words.read(CELL)["flags"] & OWNER_DIED
        turn_and_release(watcher)
        idle(s)

    for first, do_first, second, do_second in (
        (watcher, "watch(0)", holder, "unlock(0)"),
        (holder, "unlock(0)", watcher, "watch(0)"),
    ):
        explore(
            s.words, QUEUE, first, do_first, second, do_second, prepare, conclude,
            sample=SAMPLE,
        )  # fmt: skip


def test_a_holder_that_died_at_clearing_slow_strands_nobody(stage: Staging) -> None:
    """[S1] [D2] It had cleared the flag and not looked at tail again: two sleep behind it."""
    s = stage(4, watchdog_ns=10**12)
    corpse = Corpse(s)
    rescuer, following, last = s.parties
    corpse.dies_holding()
    for waiter in (following, last):
        waiter.begin("acquire(0)")
        assert not waiter.sleep_or_end()
    s.words.put32(s.words.cell(CELL, "slow"), 0)
    assert rescuer.ask("domain.recover()") == 1
    for waiter in (following, last):
        assert waiter.end() == 1, "entered without hearing of the death"
        assert not waiter.overslept
        assert waiter.ask("stepping.unlock(0)") == 0
    assert corpse.buried


@pytest.mark.parametrize("noted", [True, False], ids=["queued", "served at once"])
def test_one_that_had_its_turn_but_never_entered_is_no_holder(stage: Staging, noted: bool) -> None:
    """[D2] Killed between the owner record and the end of acquire: nothing can be half-done."""
    s = stage(3)
    corpse = Corpse(s)
    _, watcher = s.parties
    corpse.dies_holding()
    corpse.put(pending=LOCK, **({} if noted else {"ticket": NO_TICKET}))
    take(watcher)
    assert watcher.ask("stepping.watch(0)") == 0
    assert corpse.buried
    turn_and_release(watcher)
    assert not s.words.read(CELL)["flags"] & OWNER_DIED
    idle(s)


def test_a_lock_that_the_dead_released_long_ago_is_taken_meanwhile(stage: Staging) -> None:
    """[D2] Its owner record still names the dead; a living owner writes it while it is looked at."""
    s = stage(3)
    corpse = Corpse(s)
    arriving, looker = s.parties
    head = s.words.cell(CELL, "head")

    def prepare() -> None:
        corpse.dies_holding()
        s.words.put64(head, s.words.u64(head) + 1)  # let go of it, and still counts it as held

    def conclude() -> None:
        assert looker.end() == 0
        assert arriving.end() == 0
        cell = s.words.read(CELL)
        assert not cell["flags"] & OWNER_DIED
        assert cell["head"] == cell["tail"] - 1, "passed over while its owner is inside"
        assert arriving.ask("stepping.unlock(0)") == 0
        buried(s, corpse)

    explore_some(s, QUEUE, looker, "look(0)", arriving, "take(0)", prepare, conclude)


def test_a_full_table_of_tombstones_does_not_hold_up_a_dead_head(stage: Staging) -> None:
    """[D2] Nobody could abandon anything; but the ticket that is served needs no tombstone."""
    s = stage(3)
    corpse = Corpse(s)
    _, watcher = s.parties
    table = [s.words.geometry["off_tombs"] + 8 * i for i in range(s.words.geometry["tombs"])]
    corpse.dies_waiting()
    take(watcher)
    for at in table:
        s.words.put64(at, 7 << 36 | 1)  # of another lock
    s.words.put32(s.words.layout["header.tombs_live"], len(table))
    turn_and_release(watcher)
    assert corpse.buried
    for at in table:
        s.words.put64(at, 0)
    s.words.put32(s.words.layout["header.tombs_live"], 0)
    idle(s)


# --------------------------------------------------------------------- [D3]

DEATHS = {
    "holder": Corpse.dies_holding,
    "waiter": Corpse.dies_waiting,
    "xadd": Corpse.dies_at_its_xadd,
}


@pytest.mark.parametrize("death", DEATHS)
def test_recovery_survives_the_death_of_who_recovers(stage: Staging, death: str) -> None:
    """[D3] Killed before every few of its accesses: the next one does what is left of it.

    (tests/torture kills it at every instruction.)
    """
    stop, killed = 0, True
    while killed:
        s = stage(4)
        corpse = Corpse(s)
        holder, first, second = s.parties
        if death != "holder":
            take(holder, 0)
        DEATHS[death](corpse)
        take(first)
        take(second)
        first.begin("watch(0)")
        first.pass_accesses(stop, meeting(s.words, TOMBS, {corpse.index}))
        killed = not first.ended
        if killed:
            first.kill()
            s.parties.remove(first)
        else:
            assert first.end() == 0
        if death != "holder":
            assert holder.ask("stepping.unlock(0)") == 0
        if not killed:
            turn_and_release(first)
        turn_and_release(second)
        assert bool(s.words.read(CELL)["flags"] & OWNER_DIED) == (death == "holder")
        buried(s, corpse)
        first.close()
        s.close()
        stop += 1 + stop // 3
    assert stop >= 20


# --------------------------------------------------------------------- [D4]


def test_a_sleeper_that_died_is_counted_out_and_nobody_else(stage: Staging) -> None:
    """[D4] The count of an event channel is mended while another goes to sleep on it, or wakes."""
    s = stage(4)
    corpse = Corpse(s)
    holder, sleeper, watcher = s.parties

    def prepare() -> None:
        take(holder, 0)
        ticket = s.words.read(CELL)["tail"]
        at, _ = s.words.channel(CELL, ticket)
        channel = (at - s.words.geometry["off_channels"]) // s.words.layout["channel"]
        s.words.put32(at + s.words.layout["channel.parked"], s.words.u32(at + 4) + 0x10001)
        corpse.lie(channel=channel + 1)
        take(sleeper)
        take(watcher)
        conclude.at = at + s.words.layout["channel.parked"]  # type: ignore[attr-defined]

    def conclude() -> None:
        assert watcher.end() == 0
        assert holder.ask("stepping.unlock(0)") == 0
        assert sleeper.end() == 0
        assert sleeper.ask("stepping.unlock(0)") == 0
        turn_and_release(watcher)
        buried(s, corpse)
        assert s.words.u32(conclude.at) & 0xFFFF == 0  # type: ignore[attr-defined]
        overslept(sleeper)

    explore_some(
        s, QUEUE, watcher, "watch(0)", sleeper, "turn(0)", prepare, conclude, slots={slot_of(s, sleeper)}
    )


@pytest.mark.parametrize("operation", ["leave(0)", "resume(0)"])
def test_tombstones_are_counted_again_while_others_come_and_go(stage: Staging, operation: str) -> None:
    """[D4] One died between raising the count and putting up its tombstone."""
    s = stage(4)
    corpse = Corpse(s)
    holder, other, watcher = s.parties
    live = s.words.layout["header.tombs_live"]

    def prepare() -> None:
        take(holder, 0)
        take(other)
        take(watcher)
        if operation == "resume(0)":
            assert other.ask("stepping.leave(0)") == 0
        s.words.put32(live, s.words.u32(live) + 1)
        corpse.lie(burying=1)

    def conclude() -> None:
        assert watcher.end() == 0
        back = other.end()
        assert s.words.tombs_live >= s.words.tombs(), "a tombstone that nobody would look for"
        assert holder.ask("stepping.unlock(0)") == 0
        if operation == "resume(0)" and back:
            turn_and_release(other)
        turn_and_release(watcher)
        buried(s, corpse)

    explore_some(
        s, TOMBS, watcher, "watch(0)", other, operation, prepare, conclude, slots={slot_of(s, other)}
    )


def test_domain_recover_waits_for_nobody(stage: Staging) -> None:
    """Dead holders, waiters and counts of several locks, with nobody there to find them."""
    s = stage(2)
    corpse = Corpse(s)
    (party,) = s.parties
    corpse.dies_holding()
    assert party.ask("(domain.recover(), domain.recover())") == [1, 0]
    assert corpse.buried
    until("the lock is free", lambda: s.words.read(CELL)["head"] == s.words.read(CELL)["tail"])
    assert party.ask("(domain.lock('x').locked(), domain.lock('x').owner_died)") == [False, True]
