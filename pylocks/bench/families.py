"""The process of a contender in the scenarios `family` and `readers`: conditions, events, semaphores,
barriers, and locks for readers and writers, of pylocks and of the standard library.

The workers never end of themselves: they are killed when the time is over, and their shared memory tells
what they have done.  So there is nothing in the loops but what is measured, and a count.
"""

from __future__ import annotations

import gc
import json
import mmap
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import pylocks

from .arena import Slice, child
from .process import answer
from .sample import Busy, Sample, jain

__all__ = ["GAMES", "main", "play"]

WORD = 8
CAPACITY = 8
"""Of the queue that conditions guard."""
WRITES = 0.05
SPARE_VCPUS = 8
SPARE_LOCKS = 8

Work = Callable[[int], None]


@dataclass(frozen=True)
class Table:
    """What the workers of a slice share."""

    plan: Slice
    kit: Any
    """Condition, Event, Semaphore, Barrier and RLock, made as multiprocessing's."""
    sides: Callable[[], tuple[Any, Any]]
    """Makes a lock to read under and one to write under."""
    words: memoryview
    """For each worker: what it has done, its longest wait since that was set to 0, and one for the game."""

    def done(self) -> list[int]:
        """By each."""
        return list(self.words[0 : 3 * self.plan.processes : 3])

    def forget(self) -> None:
        """The longest waits."""
        for number in range(self.plan.processes):
            self.words[3 * number + 1] = 0

    def longest(self) -> int:
        """Of all waits that were noted, ns."""
        return max(self.words[1 : 3 * self.plan.processes : 3])


# --------------------------------------------------------------------- the games


def _notify(table: Table) -> Work:
    """Half of them put into a queue with room for 8, and half take out of it."""
    lock, words = table.kit.RLock(), table.words
    not_full, not_empty = table.kit.Condition(lock), table.kit.Condition(lock)

    def work(number: int) -> None:
        while number % 2 == 0:
            with lock:
                while words[2] >= CAPACITY:
                    not_full.wait()
                words[2] += 1
                not_empty.notify()
        while True:
            with lock:
                while words[2] == 0:
                    not_empty.wait()
                words[2] -= 1
                not_full.notify()
            words[3 * number] += 1

    return work


def _event(table: Table) -> Work:
    """They stand in a circle: each waits for its event and sets that of the next."""
    events = [table.kit.Event() for _ in range(table.plan.processes)]

    def work(number: int) -> None:
        mine, theirs = events[number], events[(number + 1) % len(events)]
        if number == 0:
            mine.set()
        while True:
            mine.wait()
            mine.clear()
            theirs.set()
            table.words[3 * number] += 1

    return work


def _semaphore(table: Table) -> Work:
    """A permit for every four."""
    semaphore, words = table.kit.Semaphore((table.plan.processes + 3) // 4), table.words

    def work(number: int) -> None:
        at = 3 * number
        while True:
            semaphore.acquire()
            words[at] += 1
            semaphore.release()

    return work


def _barrier(table: Table) -> Work:
    """All wait for all."""
    barrier, words = table.kit.Barrier(table.plan.processes), table.words

    def work(number: int) -> None:
        while True:
            if barrier.wait() == 0:
                words[3 * number] += 1

    return work


def _visit(table: Table, side: Any, number: int, wanted_since: int, writes: bool) -> None:
    words, turns = table.words, round(table.plan.inside_ns * table.plan.loops_per_ns)
    with side:
        waited = time.monotonic_ns() - wanted_since
        for _ in range(turns):
            pass
    if writes and waited > words[3 * number + 1]:
        words[3 * number + 1] = waited
    words[3 * number] += 1


def _mixed(table: Table) -> Work:
    """Everybody writes one time in twenty."""
    read, write = table.sides()
    outside = round(2 * table.plan.outside_ns * table.plan.loops_per_ns)

    def work(number: int) -> None:
        chance = random.Random(table.plan.seed + number)
        while True:
            writes = chance.random() < WRITES
            _visit(table, write if writes else read, number, time.monotonic_ns(), writes)
            for _ in range(chance.randrange(outside + 1)):
                pass

    return work


def _apart(table: Table) -> Work:
    """Two write, and the others read."""
    read, write = table.sides()
    outside = round(2 * table.plan.outside_ns * table.plan.loops_per_ns)

    def work(number: int) -> None:
        chance = random.Random(table.plan.seed + number)
        side = write if number < 2 else read
        while True:
            _visit(table, side, number, time.monotonic_ns(), number < 2)
            for _ in range(chance.randrange(outside + 1)):
                pass

    return work


GAMES: dict[str, Callable[[Table], Work]] = {
    "notify": _notify,
    "event": _event,
    "semaphore": _semaphore,
    "barrier": _barrier,
    "mixed": _mixed,
    "apart": _apart,
}


# ---------------------------------------------------------------------- a slice


class _Ours:
    """pylocks' primitives in a domain of their own."""

    def __init__(self, domain: pylocks.Domain) -> None:
        self.domain = domain

    def RLock(self) -> Any:
        return pylocks.Condition(domain=self.domain).lock

    def Condition(self, lock: Any) -> Any:
        return pylocks.Condition(lock)

    def Event(self) -> Any:
        return pylocks.Event(domain=self.domain)

    def Semaphore(self, value: int) -> Any:
        return pylocks.Semaphore(value, domain=self.domain)

    def Barrier(self, parties: int) -> Any:
        return pylocks.Barrier(parties, domain=self.domain)


@contextmanager
def _table(subject: str, plan: Slice) -> Iterator[Table]:
    words = memoryview(mmap.mmap(-1, 3 * WORD * plan.processes)).cast("Q")
    with pylocks.Domain(vcpus=plan.processes + SPARE_VCPUS, locks=plan.processes + SPARE_LOCKS) as domain:
        ours = subject.startswith("pylocks.")
        kit = _Ours(domain) if ours else multiprocessing.get_context("fork")

        def sides() -> tuple[Any, Any]:
            if subject == "pylocks.RWLock":
                both = pylocks.RWLock(domain=domain)
                return both.read, both.write
            lock = pylocks.TicketLock(domain=domain) if ours else kit.Lock()
            return lock, lock

        yield Table(plan, kit, sides, words)


def play(subject: str, plan: Slice) -> Sample:
    """One slice; OSError."""
    busy = Busy()
    with _table(subject, plan) as table:
        work = GAMES[plan.game](table)
        gc.freeze()  # a collection in a worker would only copy the pages it looks at
        began = time.monotonic()
        pids = [child(lambda number=number: work(number)) for number in range(plan.processes)]  # type: ignore[misc]
        try:
            time.sleep(plan.warm_ms / 1000)
            table.forget()
            before, since = table.done(), time.monotonic()
            time.sleep(plan.seconds)
            after, seconds = table.done(), time.monotonic() - since
            longest = table.longest()
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)  # not yet waited for: the pid is still its own
            used = [os.wait4(pid, 0)[2] for pid in pids]
        lived = time.monotonic() - began
    counts = [late - early for late, early in zip(after, before, strict=True)]
    done = sum(counts)
    return Sample(
        seconds=seconds,
        acquisitions=done,
        rate=done / seconds,
        jain=jain(counts) if plan.game in ("semaphore", "mixed") else None,
        max=float(longest) if longest else None,
        cpu=sum(each.ru_utime + each.ru_stime for each in used) / lived,
        switches=sum(each.ru_nvcsw + each.ru_nivcsw for each in used) / max(1, sum(after)),
        preempted=sum(each.ru_nivcsw for each in used) / max(1, sum(after)),
        others=busy.others(),
    )


def main() -> None:
    """Serve standard input until it ends."""
    asked = json.loads(sys.stdin.readline())
    answer({"pylocks": pylocks.__version__})
    for line in sys.stdin:
        answer(asdict(play(asked["subject"], Slice(**json.loads(line)))))
