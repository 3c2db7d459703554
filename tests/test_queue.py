"""The queue at its edges: tickets given up, found again or stuck; kicks that never come or go astray.

The state that would take luck to reach is written into the shared words by hand.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest
from parties import Party
from staging import CELL, PATIENCE_S, Stage, Staging, idle, queue_up, until

pytest_plugins = ["stage_fixtures"]

LOCK = 'domain.lock("x")'


@contextlib.contextmanager
def between_attempts(s: Stage, waiter: Party) -> Iterator[None]:
    """It stands still, and is not about to put a tombstone anywhere (which counts first, and then looks)."""
    process = psutil.Process(waiter.process.pid)
    burying = s.words.vcpu(s.words.vcpu_of(waiter.process.pid), "burying")

    def stands() -> bool:
        process.suspend()
        until("the waiter stands", lambda: process.status() == psutil.STATUS_STOPPED)
        if s.words.u32(burying) == 0:
            return True
        process.resume()
        return False

    until("it stands between two attempts", stands)
    yield
    process.resume()


@pytest.mark.parametrize("behind", [True, False])
def test_waiters_that_give_up_in_a_row_are_passed_over_in_one_go(stage: Staging, behind: bool) -> None:
    s = stage(5, traced=False, PYLOCKS_OPS="lock_event=counters")
    holder, *leavers, last = s.parties
    if not behind:
        leavers.append(last)
    assert holder.ask(f"{LOCK}.acquire()")
    for leaver in leavers:
        queue_up(s, leaver, f"{LOCK}.acquire(timeout=0.01)")
    if behind:
        queue_up(s, last, f"{LOCK}.acquire()")
    assert [leaver.answer() for leaver in leavers] == [False] * len(leavers)
    assert s.words.tombs_live == s.words.tombs() == len(leavers)
    holder.ask(f"{LOCK}.release()")
    if behind:
        assert last.answer() is True
        assert last.ask(f"{LOCK}.release()") is None
    idle(s)
    stats = holder.ask("(domain.stats().abandons, domain.stats().passes)")
    assert stats == [len(leavers), len(leavers)]


def test_a_caller_that_polls_keeps_its_place(stage: Staging) -> None:
    s = stage(3, traced=False)
    holder, polling, behind = s.parties
    assert holder.ask(f"{LOCK}.acquire()")
    queue_up(s, polling, f"{LOCK}.acquire(timeout=0.01)")
    assert polling.answer() is False
    queue_up(s, behind, f"{LOCK}.acquire()")
    polling.send(f"{LOCK}.acquire(timeout={PATIENCE_S})")
    until("the tombstone is taken back", lambda: s.words.tombs() == 0)
    assert s.words.read(CELL)["tail"] == 3
    holder.ask(f"{LOCK}.release()")
    assert polling.answer() is True
    assert behind.busy()
    polling.ask(f"{LOCK}.release()")
    assert behind.answer() is True
    behind.ask(f"{LOCK}.release()")
    idle(s)


def test_a_waiter_whose_kick_never_came_is_woken_by_its_watchdog(stage: Staging) -> None:
    s = stage(2, traced=False)
    holder, waiter = s.parties
    assert holder.ask(f"{LOCK}.acquire()")
    queue_up(s, waiter, f"{LOCK}.acquire()")
    until("the waiter sleeps", lambda: waiter.parked(s.words))
    s.words.put64(s.words.cell(CELL, "head"), 1)  # an unlock that was cut short by a kill
    assert waiter.answer() is True


def test_a_ticket_that_finds_no_room_for_its_tombstone_waits_on(stage: Staging) -> None:
    s = stage(2, traced=False)
    holder, waiter = s.parties
    assert holder.ask(f"{LOCK}.acquire()")
    places = s.words.tomb_slots(CELL, 1)
    live = s.words.layout["header.tombs_live"]
    for place in places:
        s.words.put64(place, 1 << 36 | 77)  # of a ticket that is never served
    s.words.put32(live, len(places))
    queue_up(s, waiter, f"{LOCK}.acquire(timeout=0.01)")
    time.sleep(0.2)
    assert waiter.busy(), "it gave up a ticket that nobody can pass over now"
    with between_attempts(s, waiter):
        s.words.put64(places[-1], 0)
        s.words.put32(live, len(places) - 1)
    assert waiter.answer() is False
    holder.ask(f"{LOCK}.release()")
    cell = s.words.read(CELL)
    assert cell["head"] == cell["tail"] == 2
    assert s.words.tombs_live == s.words.tombs() == len(places) - 1


def test_a_waiter_without_room_for_a_tombstone_is_granted_late_rather_than_never(stage: Staging) -> None:
    s = stage(2, traced=False)
    holder, waiter = s.parties
    assert holder.ask(f"{LOCK}.acquire()")
    places = s.words.tomb_slots(CELL, 1)
    for place in places:
        s.words.put64(place, 1 << 36 | 77)
    s.words.put32(s.words.layout["header.tombs_live"], len(places))
    queue_up(s, waiter, f"{LOCK}.acquire(timeout=0.01)")
    time.sleep(0.05)
    holder.ask(f"{LOCK}.release()")
    assert waiter.answer() is True
    waiter.ask(f"{LOCK}.release()")
    assert s.words.read(CELL)["head"] == 2


def test_while_tombstones_are_crowded_timed_acquires_take_no_ticket(stage: Staging) -> None:
    s = stage(2, traced=False)
    holder, waiter = s.parties
    assert holder.ask(f"{LOCK}.acquire()")
    s.words.put32(s.words.layout["header.tombs_live"], s.words.geometry["tombs"] * 3 // 4)
    assert waiter.ask(f"{LOCK}.acquire(timeout=0.05)") is False
    assert s.words.read(CELL)["tail"] == 1
    waiter.send(f"{LOCK}.acquire(timeout={PATIENCE_S})")
    time.sleep(0.05)
    assert waiter.busy() and s.words.read(CELL)["tail"] == 1
    holder.ask(f"{LOCK}.release()")
    assert waiter.answer() is True
    waiter.ask(f"{LOCK}.release()")


@pytest.mark.parametrize("same_bit", [True, False])
def test_two_tickets_of_two_locks_on_one_channel(stage: Staging, same_bit: bool) -> None:
    """A kick meant for one is no kick for the other, which sleeps on or goes back to sleep."""
    s = stage(3, traced=False, PYLOCKS_OPS="lock_event=counters")
    holder, one, other = s.parties
    assert holder.ask('domain.lock("y").index') == 1
    channel, bit = s.words.channel(0, 1)
    ticket = next(
        t
        for t in range(1, 10_000_000)
        for at, its in [s.words.channel(1, t)]
        if at == channel and (its == bit) == same_bit
    )
    for name in ("tail", "head"):
        s.words.put64(s.words.cell(1, name), ticket - 1)
    assert holder.ask('(domain.lock("x").acquire(), domain.lock("y").acquire())') == [True, True]
    queue_up(s, one, 'domain.lock("x").acquire()')
    queue_up(s, other, 'domain.lock("y").acquire()', 1)
    assert s.words.read(1)["tail"] == ticket + 1
    until("both sleep", lambda: one.parked(s.words) and other.parked(s.words))
    assert s.words.u32(channel + s.words.layout["channel.parked"]) & 0xFFFF == 2

    holder.ask('domain.lock("x").release()')
    assert one.answer() is True
    if same_bit:
        until("the wrong one woke", lambda: holder.ask("domain.stats().spurious") >= 1)
    assert other.busy()
    holder.ask('domain.lock("y").release()')
    assert other.answer() is True
    one.ask('domain.lock("x").release()')
    other.ask('domain.lock("y").release()')
    assert s.words.u32(channel + s.words.layout["channel.parked"]) & 0xFFFF == 0
    spurious, watchdogs = holder.ask("(domain.stats().spurious, domain.stats().watchdogs)")
    assert same_bit or spurious <= watchdogs  # a watchdog may look just when the other's kick comes


NATIVE = {"PYLOCKS_PROTOCOL": "native"}


def test_a_native_waiter_passes_over_an_abandoned_head(stage: Staging) -> None:
    """The native unlocker does not look; who waits behind does."""
    s = stage(3, traced=False, **NATIVE)
    holder, leaver, waiter = s.parties
    assert holder.ask("stepping.take(0)") == 0
    assert leaver.ask("stepping.take(0)") == 1
    queue_up(s, waiter, "stepping.acquire(0)")
    assert leaver.ask("stepping.leave(0)") == 0
    assert holder.ask("stepping.unlock(0)") == 0
    assert waiter.answer() == 0
    assert waiter.ask("stepping.unlock(0)") == 0
    cell = s.words.read(CELL)
    assert cell["head"] == cell["tail"] == 3
    assert s.words.tombs() == 0


@pytest.mark.parametrize("look", ["stepping.try_pair(0)", f"{LOCK}.acquire(timeout=0)", f"{LOCK}.locked()"])
def test_a_native_lock_with_an_abandoned_head_is_free(stage: Staging, look: str) -> None:
    s = stage(3, traced=False, **NATIVE)
    holder, leaver, other = s.parties
    assert other.ask(f"({LOCK}.acquire(), {LOCK}.release())[0]")  # a vCPU, which can move the queue
    assert holder.ask("stepping.take(0)") == 0
    assert leaver.ask("stepping.take(0)") == 1
    assert leaver.ask("stepping.leave(0)") == 0
    assert holder.ask("stepping.unlock(0)") == 0
    assert other.ask(look) in (0, True) if "locked" not in look else other.ask(look) is False


HANDLER = """
import signal
happened = []
def handler(number, frame):
    happened.append("interrupted")
    with domain.lock("y"):
        happened.append("y")
signal.signal(signal.SIGUSR1, handler)
def outer():
    with domain.lock("x"):
        happened.append("x")
    return happened
"""


def test_a_nested_taker_consumes_no_kick_of_the_wait_it_interrupts(stage: Staging) -> None:
    """A handler that waits for another lock while its thread waits: each wait has its own kick."""
    s = stage(2, traced=False)
    holder, waiter = s.parties
    waiter.define(HANDLER)
    assert holder.ask('domain.lock("y").index') == 1
    assert holder.ask('(domain.lock("x").acquire(), domain.lock("y").acquire())') == [True, True]
    queue_up(s, waiter, "outer()")
    me = s.words.vcpu_of(waiter.process.pid)
    until("the outer wait sleeps", lambda: waiter.parked(s.words))
    os.kill(waiter.process.pid, signal.SIGUSR1)
    until("the handler waits", lambda: s.words.read(1)["tail"] == 2 and waiter.parked(s.words))
    assert s.words.u32(s.words.vcpu(me, "depth")) == 1
    assert s.words.u32(s.words.vcpu(me, "pending")) == 2

    holder.ask('domain.lock("x").release()')  # a kick for the outer wait, which can't take it now
    time.sleep(0.02)
    assert waiter.busy()
    assert s.words.read(CELL)["head"] == 1 and s.words.read(1)["head"] == 0
    holder.ask('domain.lock("y").release()')
    assert waiter.answer() == ["interrupted", "y", "x"]
    for index in (0, 1):
        cell = s.words.read(index)
        assert cell["head"] == cell["tail"] == 2
    assert s.words.u32(s.words.vcpu(me, "depth")) == 0
    assert s.words.u32(s.words.vcpu(me, "held")) == 0


def test_a_handler_that_waits_for_its_own_frames_lock_is_told(stage: Staging) -> None:
    s = stage(2, traced=False)
    holder, waiter = s.parties
    waiter.define(HANDLER.replace('with domain.lock("y"):', "with refused():"))
    waiter.define(
        "import contextlib\n"
        "@contextlib.contextmanager\n"
        "def refused():\n"
        "    try:\n"
        f"        {LOCK}.acquire()\n"
        "    except pylocks.AlreadyOwnerError:\n"
        "        yield\n"
    )
    assert holder.ask(f"{LOCK}.acquire()")
    queue_up(s, waiter, "outer()")
    until("the outer wait sleeps", lambda: waiter.parked(s.words))
    os.kill(waiter.process.pid, signal.SIGUSR1)
    until("the handler's ticket is abandoned", lambda: s.words.tombs() == 1)
    assert waiter.busy()
    holder.ask(f"{LOCK}.release()")
    assert waiter.answer() == ["interrupted", "y", "x"]
    idle(s)
