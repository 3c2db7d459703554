"""Threads and processes that take locks in a circle; tasks for puppets that have several locks."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pylocks import DeadlockError, Domain, TicketLock
from pylocks.deadlocks import Cycle, find

from .puppet import Puppet
from .wait import until

LONG_S = 300
WAYS = ("acquire", "timed", "with", "within", "repair")


def names(count: int) -> list[str]:
    """Of the locks of a circle."""
    return [f"lock {index}" for index in range(count)]


def make(domain: Domain, count: int, policy: str = "fifo") -> list[TicketLock]:
    """Such locks."""
    return [TicketLock(name, domain=domain, policy=policy) for name in names(count)]


@contextmanager
def puppets(kind: str, locks: Any, count: int) -> Iterator[list[Puppet]]:
    """Puppets that all have these locks; processes are killed afterwards."""
    made: list[Puppet] = []
    try:
        for _ in range(count):
            made.append(Puppet(kind, locks))
        yield made
    finally:
        for puppet in made:
            if kind != "threads":
                puppet.kill()
            puppet.end()


def take(locks: Sequence[TicketLock], index: int, way: str = "acquire") -> bool:
    """Acquire one, waiting as long as it takes."""
    lock = locks[index]
    if way == "acquire":
        return lock.acquire()
    if way == "timed":
        return lock.acquire(timeout=LONG_S)
    context: Any = {"with": lock, "within": lock.within(LONG_S), "repair": lock.repair()}[way]
    return bool(context.__enter__())


def give(locks: Sequence[TicketLock], *indices: int) -> None:
    """Release them."""
    for index in indices:
        locks[index].release()


def visit(locks: Sequence[TicketLock], index: int, own: int, way: str) -> Any:
    """Take one more and release both; if that is refused, release the own one and tell the cycle."""
    try:
        take(locks, index, way)
    except DeadlockError as error:
        locks[own].release()
        return error.cycle
    give(locks, index, own)
    return None


class Meeting:
    """Where threads, or processes made by fork, wait for each other without sleeping."""

    def __init__(self, count: int) -> None:
        self._rounds = memoryview(mmap.mmap(-1, 8 * count)).cast("Q")

    def meet(self, index: int) -> None:
        """Return when all have come as often as this one, who comes as number `index`."""
        self._rounds[index] += 1
        while min(self._rounds) < self._rounds[index]:
            os.sched_yield()


def clash(shared: tuple[Sequence[TicketLock], Meeting], own: int, other: int, rounds: int) -> list[bool]:
    """Round by round take the own lock, meet the others, want another's; in which it was refused."""
    locks, meeting = shared
    refused = []
    for _ in range(rounds):
        locks[own].acquire()
        meeting.meet(own)
        refused.append(visit(locks, other, own, "acquire") is not None)
        meeting.meet(own)
    return refused


def climb(locks: Sequence[TicketLock], seed: int, times: int) -> int:
    """Take some of the locks, always in the order in which they lie; how often the last was had."""
    had = 0
    for turn in range(times):
        held = []
        for index in range(len(locks)):
            if (seed + turn * 7) >> index & 1 or index == len(locks) - 1:
                timeout = 0.0002 if (turn + index) % 5 == 0 else None
                if not locks[index].acquire(timeout=timeout):
                    continue
                held.append(index)
        had += held[-1:] == [len(locks) - 1]
        give(locks, *reversed(held))
    return had


def await_waiters(domain: Domain, count: int) -> None:
    """Return when so many threads of the domain wait."""
    until(
        lambda: sum(vcpu.waiting_since is not None for vcpu in domain.vcpus()) == count,
        f"{count} threads to wait",
    )


def found(domain: Domain, count: int = 1) -> list[Cycle]:
    """So many cycles; a thread that is just looking at its signals is not seen to wait."""
    last: list[Cycle] = []

    def look() -> bool:
        last[:] = find(domain)
        return len(last) == count

    until(look, f"{count} cycles to stand")
    return last
