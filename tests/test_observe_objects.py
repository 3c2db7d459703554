"""Semaphores, events and their like: who is inside, who waits for what, in which state they are."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from conftest import segment_path
from support import header
from support.insiders import forever, in_a_row, inside, rest, seen, who
from support.syncs import forked
from support.wait import until

import pylocks
from pylocks import cli
from pylocks.mutex import Mutex, RMutex
from pylocks.observe import Lock, SyncObject, snap, snapshot

Capture = pytest.CaptureFixture[str]

# ------------------------------------------------------------------- kinds


def test_a_semaphore_says_what_is_left_and_who_waits_in_order(name: str) -> None:
    with pylocks.Domain(name) as domain:
        slots = pylocks.Semaphore(2, name="slots", domain=domain)
        assert (seen(slots).kind, seen(slots).state, seen(slots).busy) == ("Semaphore", "2 of 2 left", False)
        slots.acquire()
        slots.acquire()
        with in_a_row(slots, *[slots.acquire] * 3) as children:
            found = rest(slots)
            assert (found.state, found.value, found.of, found.holders) == ("0 of 2 left", 0, 2, ())
            assert who(found.waiters) == [(child.pid, "permit") for child in children]
            waits = [waiter.waited_ns for waiter in found.waiters]
            assert None not in waits and waits == sorted(waits, key=lambda ns: -(ns or 0))
            assert found.longest_wait_ns == waits[0]
            (waiter,) = (v for v in snapshot(domain).vcpus if v.pid == children[0].pid)
            assert waiter.waits_for == ((slots.index, None),) and waiter.holds == ()
        slots.release(5)
        assert seen(slots).state == "5 left"


def test_a_bounded_one_and_one_that_signals(name: str) -> None:
    with pylocks.Domain(name) as domain:
        pool = pylocks.BoundedSemaphore(8, domain=domain)
        news = pylocks.Semaphore(0, domain=domain)
        pool.acquire()
        news.release(3)
        assert (seen(pool).kind, seen(pool).state) == ("BoundedSemaphore", "7 of 8 left")
        assert (seen(news).state, seen(news).value, seen(news).of) == ("3 left", 3, 0)


def test_owned_permits_have_holders(name: str) -> None:
    with pylocks.Domain(name) as domain:
        gpus = pylocks.Semaphore(3, domain=domain, owned=True)
        with inside(gpus, lambda: (gpus.acquire(), gpus.acquire()), gpus.acquire) as holders:
            until(lambda: gpus.value == 0, "all permits to be taken")
            with in_a_row(gpus, gpus.acquire) as waiters:
                found = rest(gpus)
        assert (found.kind, found.state, found.busy) == ("owned Semaphore", "0 of 3 left", True)
        assert sorted((each.vcpu.pid, each.what, each.count) for each in found.holders) == sorted(
            [(holders[0].pid, "permit", 2), (holders[1].pid, "permit", 1)]
        )
        assert who(found.waiters) == [(waiters[0].pid, "permit")]


def test_an_event_is_set_or_not(name: str) -> None:
    with pylocks.Domain(name) as domain:
        ready = pylocks.Event(domain=domain)
        with in_a_row(ready, ready.wait, ready.wait) as children:
            found = rest(ready)
            assert (found.kind, found.state, found.value) == ("Event", "not set", 0)
            assert who(found.waiters) == [(child.pid, "set") for child in children]
            ready.set()
            assert [child.wait() for child in children] == [0, 0]
        found = seen(ready)
        assert (found.state, found.value, found.waiters) == ("set", 1, ())


@pytest.mark.parametrize("own", [True, False])
def test_a_condition_names_its_lock(own: bool, name: str, capsys: Capture) -> None:
    with pylocks.Domain(name) as domain:
        lock = None if own else pylocks.TicketRLock(domain=domain)
        changed = pylocks.Condition(lock, name=None if lock is not None else "changed", domain=domain)

        def wait() -> None:
            with changed:
                changed.wait()

        with in_a_row(changed, wait, wait) as children, changed:
            found = rest(changed)
            assert (found.kind, found.lock) == ("Condition", changed.lock.index)
            assert who(found.waiters) == [(child.pid, "notify") for child in children]
            assert cli.main(["inspect", f"#{changed.index}", "--domain", name, "--once"]) == 0
            text = capsys.readouterr().out
            what = "RMutex" if own else "fifo"
            thread = f"thread {threading.get_native_id()} of process {os.getpid()}"
            assert f"its lock, #{changed.lock.index} ({what}), is held by {thread}" in text


def test_who_is_notified_waits_for_the_lock(name: str) -> None:
    with pylocks.Domain(name) as domain:
        changed = pylocks.Condition(domain=domain)

        def wait() -> None:
            with changed:
                changed.wait()

        with in_a_row(changed, wait) as children:
            with changed:
                changed.notify()
                until(lambda: seen(changed.lock).waiters, "the notified to want the lock")
                found = rest(changed.lock)
                assert seen(changed).waiters == ()
                assert who(found.holders) == [(os.getpid(), "lock")]
                assert who(found.waiters) == [(children[0].pid, "lock")]
            assert children[0].wait() == 0


def test_a_barrier_counts_who_is_there(name: str) -> None:
    with pylocks.Domain(name) as domain:
        phase = pylocks.Barrier(3, domain=domain)

        def wait() -> None:
            with suppress(threading.BrokenBarrierError):
                phase.wait()

        with in_a_row(phase, wait, wait) as children:
            found = rest(phase)
            assert (found.kind, found.state, found.value, found.of) == ("Barrier", "2 of 3 there", 2, 3)
            assert who(found.waiters) == [(child.pid, "all") for child in children]
            phase.abort()
            assert [child.wait() for child in children] == [0, 0]
        assert (seen(phase).state, seen(phase).waiters) == ("broken", ())


def test_who_acts_for_a_barrier(name: str) -> None:
    with pylocks.Domain(name) as domain:
        phase = pylocks.Barrier(2, action=forever, domain=domain)
        with in_a_row(phase, phase.wait) as waiters, inside(phase, phase.wait) as actors:
            found = rest(phase)
            assert (found.state, found.busy) == ("2 of 2 there, one acts", True)
            assert who(found.holders) == [(actors[0].pid, "action")]
            assert who(found.waiters) == [(waiters[0].pid, "all")]


def test_readers_a_writer_and_who_wants_what(name: str) -> None:
    with pylocks.Domain(name) as domain:
        prices = pylocks.RWLock(domain=domain)
        assert seen(prices).state == "free"
        with (
            inside(prices, prices.read.acquire, prices.read.acquire) as readers,
            in_a_row(prices, prices.write.acquire, prices.read.acquire) as waiters,
        ):
            found = rest(prices)
        assert (found.kind, found.state, found.value) == ("RWLock", "2 reading", 2)
        assert sorted(who(found.holders)) == sorted((child.pid, "read") for child in readers)
        assert who(found.waiters) == [(waiters[0].pid, "write"), (waiters[1].pid, "read")]
        with prices.write:
            found = seen(prices)
            assert (found.state, who(found.holders)) == ("written", [(os.getpid(), "write")])


@pytest.mark.filterwarnings("ignore::pylocks.OwnerDiedWarning")
@pytest.mark.parametrize("kind", [Mutex, RMutex])
def test_a_mutex_has_a_holder(kind: type[Mutex], name: str) -> None:
    with pylocks.Domain(name) as domain:
        lock = kind(domain=domain)
        assert (seen(lock).state, seen(lock).holders, seen(lock).busy) == ("free", (), False)
        with inside(lock, lock.acquire) as holders, in_a_row(lock, lock.acquire) as waiters:
            found = rest(lock)
            assert (found.kind, found.state, found.busy) == (kind.__name__, "held", True)
            assert who(found.holders) == [(holders[0].pid, "lock")]
            assert who(found.waiters) == [(waiters[0].pid, "lock")]
            (holder,) = (v for v in snapshot(domain).vcpus if v.pid == holders[0].pid)
            assert holder.holds == (lock.index,) and holder.waits_for == ()


def test_how_often_an_rmutex_is_held(name: str) -> None:
    with pylocks.Domain(name) as domain:
        lock = RMutex(domain=domain)
        with lock, lock, lock:
            assert (seen(lock).state, seen(lock).holders[0].count) == ("held 3 times", 3)


def test_a_recursive_lock_is_a_lock(name: str) -> None:
    with pylocks.Domain(name) as domain:
        lock = pylocks.TicketRLock("again", domain=domain)
        with lock, lock:
            found = snapshot(domain)
            assert found.objects == () and found.lock("again") == found.find("again")
            owner = found.locks[0].owner
            assert owner is not None and owner.vcpu.pid == os.getpid()


# ------------------------------------------------------------------- deaths


@pytest.mark.filterwarnings("ignore::pylocks.OwnerDiedWarning")
def test_a_holder_that_was_killed(name: str, capsys: Capture) -> None:
    with pylocks.Domain(name) as domain:
        lock, prices = Mutex(domain=domain, name="ledger"), pylocks.RWLock("prices", domain=domain)
        with inside(lock, lambda: (prices.write.acquire(), lock.acquire())) as children:
            os.kill(children[0].pid, signal.SIGKILL)
            for thing in (lock, prices):
                until(lambda: not seen(thing).holders[0].vcpu.alive, "news of its death")  # noqa: B023
                found = seen(thing)
                assert found.half_done and not found.owner_died and found.holders[0].vcpu.process is None
        assert cli.main(["top", name, "--once"]) == 0
        rows = [
            line for line in capsys.readouterr().out.splitlines() if line.startswith(("ledger", "prices"))
        ]
        assert len(rows) == 2 and all("holder is dead" in row for row in rows)
        domain.recover()
        with prices.read:
            assert (seen(prices).state, seen(prices).owner_died) == ("1 reading", True)
        pylocks.Semaphore(1, domain=domain).acquire()
        with in_the_slot_of_the_dead(domain):
            found = seen(lock)
            assert found.half_done and found.busy and (found.lost or not found.holders[0].vcpu.alive)
        with lock:
            assert not seen(lock).half_done


@contextmanager
def in_the_slot_of_the_dead(domain: pylocks.Domain) -> Iterator[None]:
    """A thread more in the domain: it gets the first slot that is free."""
    other = pylocks.Semaphore(1, domain=domain)
    with forked(lambda: (other.acquire(), forever())):
        until(lambda: other.value == 0, "another thread to be there")
        yield


# --------------------------------------------------------------------- time


def test_a_wait_has_one_beginning(name: str) -> None:
    """However often its thread wakes to look after the queue, and at its signals."""
    with pylocks.Domain(name) as domain:
        ready = pylocks.Event(domain=domain)
        with in_a_row(ready, ready.wait):
            first = begins(ready)
            until(lambda: time.monotonic_ns() - first > 500_000_000, "half a second to pass")
            assert {begins(ready) for _ in range(20)} == {first}


def begins(thing: Any) -> int:
    """When its only waiter began to wait; not while that looks at signals."""
    while True:
        look = snapshot(thing.domain)
        found = look.find(f"#{thing.index}")
        assert isinstance(found, SyncObject)
        waited = [waiter.waited_ns for waiter in found.waiters]
        if waited and waited[0] is not None:
            return look.taken_ns - waited[0]


def test_a_signal_handler_that_waits_comes_last(name: str) -> None:
    with pylocks.Domain(name) as domain:
        outer, inner = pylocks.Semaphore(0, domain=domain), pylocks.Event(domain=domain)

        def wait() -> None:
            signal.signal(signal.SIGUSR1, lambda *_: inner.wait())
            outer.acquire()

        with in_a_row(outer, wait) as (child,):
            os.kill(child.pid, signal.SIGUSR1)
            until(lambda: seen(inner).waiters, "its handler to wait")
            assert seen(outer).waiters[0].aside and seen(outer).waiters[0].waited_ns is None
            assert begins(inner) and not seen(inner).waiters[0].aside
            (vcpu,) = (v for v in snapshot(domain).vcpus if v.pid == child.pid)
            assert vcpu.waits_for == ((outer.index, None), (inner.index, None))


def test_a_lock_in_a_handler_and_a_semaphore_behind_it(name: str) -> None:
    """The other way round: the time is that of what it waits for now."""
    with pylocks.Domain(name) as domain:
        lock, news = domain.lock("orders"), pylocks.Semaphore(0, domain=domain)

        def wait() -> None:
            signal.signal(signal.SIGUSR1, lambda *_: news.acquire() and None)
            lock.acquire()

        def queue() -> Lock:
            found = snapshot(domain).lock("orders")
            assert found is not None
            return found

        with lock, forked(wait) as (child,):
            until(lambda: queue().waiters, "the child in the queue")
            os.kill(child.pid, signal.SIGUSR1)
            until(lambda: seen(news).waiters, "its handler to wait")
            assert begins(news) and queue().waiters[0].waited_ns is None
            (vcpu,) = (v for v in snapshot(domain).vcpus if v.pid == child.pid)
            assert vcpu.waits_for == ((lock.index, 1), (news.index, None))


# ------------------------------------------------------- nobody is disturbed


def test_a_look_takes_no_guard_and_leaves_no_trace(name: str) -> None:
    with pylocks.Domain(name) as domain:
        slots, prices = pylocks.Semaphore(0, domain=domain), pylocks.RWLock(domain=domain)
        with in_a_row(slots, slots.acquire) as waiters, inside(prices, prices.read.acquire):
            os.kill(waiters[0].pid, signal.SIGSTOP)
            until(lambda: seen(slots).waiters[0].vcpu.state == "stopped", "it to be stopped")
            before = segment_path(name).read_bytes()
            for _ in range(20):
                snapshot(name)
            assert segment_path(name).read_bytes() == before
            # As if somebody was stopped with the guard.
            cell = header.Cell.from_buffer_copy(before, header.cell_at(segment_path(name), slots.index))
            at = header.cell_at(segment_path(name), slots.index)
            header.poke(segment_path(name), at, (cell.tail + 1).to_bytes(8, "little"))
            found = seen(slots)
            header.poke(segment_path(name), at, cell.tail.to_bytes(8, "little"))
            assert found.changing and len(found.waiters) == 1 and not seen(slots).changing
            os.kill(waiters[0].pid, signal.SIGCONT)


def test_what_was_freed_is_not_listed_and_its_place_begins_anew(name: str) -> None:
    with pylocks.Domain(name) as domain:
        old = pylocks.Semaphore(0, domain=domain)
        index = old.index
        assert not old.acquire(timeout=0.001)
        # As a thread that died in the queue would leave its node; the first thread's first.
        header.poke(segment_path(name), header.read(segment_path(name)).geometry.off_nodes, b"\1")
        assert len(seen(old).waiters) == 1
        del old
        assert snapshot(domain).objects == ()
        new = pylocks.Event(domain=domain)
        assert new.index == index and (seen(new).kind, seen(new).waiters) == ("Event", ())


def test_of_many_unnamed_ones_those_in_use_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snap, "MOST_UNNAMED", 10)
    with pylocks.Domain() as domain:
        some = [pylocks.Semaphore(1, domain=domain, owned=True) for _ in range(20)]
        named = pylocks.Event(name="ready", domain=domain)
        with some[7], some[13]:
            found = snapshot(domain)
        assert [each.index for each in found.objects] == [some[7].index, some[13].index, named.index]
        assert found.omitted == 18
