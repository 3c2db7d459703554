"""Circles through mutexes, recursive locks and RWLocks are reported; what could still go on is not."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from support.syncs import Forked
from support.wait import until

import pylocks
from pylocks import cli
from pylocks import multiprocessing as mp
from pylocks.deadlocks import Cycle, find
from pylocks.mutex import Mutex, RMutex

Side = Callable[[], object]
Pair = tuple[Any, Any]
"""Two things, each with acquire()."""


def ticket_locks(domain: pylocks.Domain) -> Pair:
    return pylocks.TicketRLock("left", domain=domain), pylocks.TicketRLock("right", domain=domain)


def mutexes(domain: pylocks.Domain) -> Pair:
    return Mutex(name="left", domain=domain), Mutex(name="right", domain=domain)


def rmutexes(domain: pylocks.Domain) -> Pair:
    return RMutex(name="left", domain=domain), RMutex(name="right", domain=domain)


def writers(domain: pylocks.Domain) -> Pair:
    left, right = (pylocks.RWLock(which, domain=domain) for which in ("left", "right"))
    return left.write, right.write


def mixed(domain: pylocks.Domain) -> Pair:
    return pylocks.TicketLock("left", domain=domain), Mutex(name="right", domain=domain)


def mixed_recursive(domain: pylocks.Domain) -> Pair:
    return pylocks.RWLock("left", domain=domain).write, pylocks.TicketRLock("right", domain=domain)


KINDS = (ticket_locks, mutexes, rmutexes, writers, mixed, mixed_recursive)


@contextmanager
def crossing(first: tuple[Side, Side], second: tuple[Side, Side]) -> Iterator[tuple[Forked, Forked]]:
    """Two processes: each does its first thing, then, when both have, its second."""
    here, there = os.pipe(), os.pipe()

    def go(steps: tuple[Side, Side], mine: int, other: int) -> None:
        steps[0]()
        os.write(mine, b"x")
        os.read(other, 1)
        steps[1]()

    children = [
        Forked(lambda: go(first, here[1], there[0])),
        Forked(lambda: go(second, there[1], here[0])),
    ]
    try:
        yield children[0], children[1]
    finally:
        for child in children:
            child.kill()
        for end in (*here, *there):
            os.close(end)


def found(domain: pylocks.Domain) -> Cycle:
    """The cycle, when it stands; a thread that looks at its signals is not seen to wait."""
    cycles: list[Cycle] = []
    until(lambda: cycles.extend(find(domain)) or cycles, "a cycle to be found")
    (cycle,) = cycles
    return cycle


def never(domain: pylocks.Domain, waiting: int) -> None:
    """So many wait, and however often one looks there is no cycle."""
    until(lambda: sum(v.alive and v.waiting_since is not None for v in domain.vcpus()) == waiting, "them")
    end = time.monotonic() + 0.3
    while time.monotonic() < end:
        assert find(domain) == []


@pytest.mark.filterwarnings("ignore::pylocks.OwnerDiedWarning")
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_two_in_opposite_orders(kind: Callable[[pylocks.Domain], Pair], name: str) -> None:
    with pylocks.Domain(name) as domain:
        left, right = kind(domain)
        with crossing((left.acquire, right.acquire), (right.acquire, left.acquire)) as (one, two):
            cycle = found(domain)
            members = {member.pid: member for member in cycle.members}
            assert members.keys() == {one.pid, two.pid}
            assert (members[one.pid].holds, members[one.pid].wants) == ("left", "right")
            assert (members[two.pid].holds, members[two.pid].wants) == ("right", "left")
            assert all(member.tid == member.pid and member.process for member in cycle.members)
            assert found(domain).identity == cycle.identity
            two.kill()
            assert one.wait() == 0  # it has got what the dead held
        assert find(domain) == []


def test_who_writes_waits_for_all_who_read(name: str) -> None:
    """Also for who has more than one way to the end: each reader must leave."""
    with pylocks.Domain(name) as domain:
        prices, orders = pylocks.RWLock("prices", domain=domain), Mutex(name="orders", domain=domain)
        bystander = Forked(lambda: (prices.read.acquire(), signal.pause()))
        try:
            until(lambda: prices.owners, "another reader")
            with crossing(
                (prices.read.acquire, orders.acquire), (orders.acquire, prices.write.acquire)
            ) as two:
                cycle = found(domain)
                assert {member.pid for member in cycle.members} == {child.pid for child in two}
        finally:
            bystander.kill()


def test_a_reader_behind_a_writer_waits_for_who_reads(name: str) -> None:
    with pylocks.Domain(name) as domain:
        prices, orders = pylocks.RWLock("prices", domain=domain), Mutex(name="orders", domain=domain)
        writer: list[Forked] = []

        def read_later() -> None:
            until(lambda: prices.waiters == 1, "the writer in between")
            prices.read.acquire()

        try:
            with crossing((prices.read.acquire, orders.acquire), (orders.acquire, read_later)) as two:
                until(lambda: prices.owners, "the first reader")
                writer.append(Forked(prices.write.acquire))
                cycle = found(domain)
                assert {member.pid for member in cycle.members} == {child.pid for child in two}
        finally:
            for child in writer:
                child.kill()


def test_what_could_go_on_is_no_cycle(name: str) -> None:
    """Permits come from anybody; so may the release of a mutex that its own holder waits for."""
    with pylocks.Domain(name) as domain:
        left, right = (pylocks.Semaphore(1, domain=domain) for _ in range(2))
        with crossing((left.acquire, right.acquire), (right.acquire, left.acquire)):
            never(domain, 2)
        signalled = Mutex(domain=domain)
        child = Forked(lambda: (signalled.acquire(), signalled.acquire()))
        try:
            never(domain, 1)
            signalled.release()
            assert child.wait() == 0
        finally:
            child.kill()


@pytest.mark.filterwarnings("ignore::pylocks.OwnerDiedWarning")
def test_who_waits_behind_a_cycle_is_no_member(name: str) -> None:
    with pylocks.Domain(name) as domain:
        left, right = mutexes(domain)
        with crossing((left.acquire, right.acquire), (right.acquire, left.acquire)) as two:
            found(domain)
            behind = Forked(left.acquire)
            try:
                until(lambda: left.waiters == 2, "one more to wait")
                assert {member.pid for member in found(domain).members} == {child.pid for child in two}
            finally:
                behind.kill()


def take_both(first: Any, second: Any, barrier: Any) -> None:
    with first:
        barrier.wait()
        with second:
            pass


@pytest.mark.filterwarnings("ignore::pylocks.OwnerDiedWarning")
def test_two_locks_of_multiprocessing(capsys: pytest.CaptureFixture[str]) -> None:
    """As a program has them, in a domain without a name, found by the command."""
    context = mp.get_context("fork")
    left, right, both = context.Lock(), context.Lock(), context.Barrier(2)
    workers = [
        context.Process(target=take_both, args=args) for args in ((left, right, both), (right, left, both))
    ]
    for worker in workers:
        worker.start()
    try:
        pids = {worker.pid for worker in workers}
        cycles: list[Any] = []

        def look() -> bool:
            cli.main(["deadlocks", "--json"])
            told = json.loads(capsys.readouterr().out)
            cycles[:] = [each for each in told if pids & {member["pid"] for member in each["members"]}]
            return bool(cycles)

        until(look, "the command to find it")
        (cycle,) = cycles
        assert cycle["domain"].startswith("@")
        assert {member["pid"] for member in cycle["members"]} == pids
        assert all(member["process"] for member in cycle["members"])
        assert len({member["wants"] for member in cycle["members"]}) == 2
    finally:
        for worker in workers:
            worker.kill()
            worker.join()
