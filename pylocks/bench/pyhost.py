"""The process of one Python contender; as host.py is for one in C."""

from __future__ import annotations

import json
import mmap
import random
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import pylocks

from . import deaths, fights
from .arena import Arena, Crew, Slice, figures, lead
from .csubjects import ffi, library
from .process import answer
from .sample import Busy, Sample
from .subjects import Subject, Terms, UnavailableError, subject

__all__ = ["main", "play"]

WORD = 8


@dataclass(frozen=True)
class Entry:
    """What this process measures."""

    subject: Subject
    policy: str
    locks: int

    @contextmanager
    def open(self, processes: int, several: bool = False) -> Iterator[Any]:
        """Its lock, or all of its locks."""
        terms = Terms(processes, self.locks, self.policy)
        if not several:
            with self.subject.open(terms) as lock:
                yield lock
        elif self.locks > 1 and self.subject.open_many is not None:
            with self.subject.open_many(terms) as locks:
                yield locks
        else:
            with ExitStack() as stack:
                yield [stack.enter_context(self.subject.open(terms)) for _ in range(self.locks)]

    def facts(self) -> dict[str, Any]:
        """What this process is, or {"unavailable": why}."""
        told: dict[str, Any] = {"pylocks": pylocks.__version__}
        try:
            with self.open(1, self.locks > 1):
                if self.subject.name.startswith("pylocks"):
                    with pylocks.Domain() as domain:
                        told |= {"protocol": domain.protocol, "slow_path": domain.slow_path}
        except (UnavailableError, ValueError, OSError, pylocks.PylocksError) as error:
            return {"unavailable": str(error)}
        return told


class Bench:
    """The shared memory of a slice whose workers are written in Python."""

    def __init__(self, entry: Entry, plan: Slice) -> None:
        self.entry, self.plan = entry, plan
        self.arena = Arena(plan, python=True)
        self._ring_bytes = fights.RING * WORD
        self._rings = mmap.mmap(-1, plan.processes * self._ring_bytes)
        self._counters = mmap.mmap(-1, max(entry.locks * WORD, mmap.PAGESIZE))

    def desk(self, number: int, lock: Any) -> fights.Desk:
        """That of worker `number`; called in its process."""
        control = self.arena.control
        page = ffi.cast("char *", self.arena.workers[number]) - ffi.cast("char *", control)
        ring = memoryview(self._rings)[number * self._ring_bytes : (number + 1) * self._ring_bytes]
        mapping = memoryview(self.arena.map)
        chance = random.Random(self.plan.seed + number)
        several = self.entry.locks if self.plan.game == "array" else 0
        return fights.Desk(
            lock=lock,
            phase=mapping.cast("I"),
            words=mapping.cast("Q"),
            counter=ffi.offsetof("struct bench_control", "counter") // WORD,
            since=(page + ffi.offsetof("struct bench_worker", "waiting_since")) // WORD,
            count=(page + ffi.offsetof("struct bench_worker", "acquisitions")) // WORD,
            ring=ring.cast("Q"),
            inside=round(self.plan.inside_ns * self.plan.loops_per_ns),
            outside=fights.pauses(
                round(self.plan.outside_ns * self.plan.loops_per_ns), self.plan.seed + number
            ),
            counters=memoryview(self._counters).cast("Q"),
            picks=[chance.randrange(several) for _ in range(1 << 16)] if several else (),
        )

    def fight(self, number: int, desk: fights.Desk) -> None:
        """Be worker `number`."""
        lib, control, plan = library(), self.arena.control, self.plan
        if plan.game == "array":
            loop = fights.list_of_locks if isinstance(desk.lock, list) else fights.array
            fights.touch(desk)
        else:
            loop = fights.worked if plan.inside_ns or plan.outside_ns else fights.bare
        lib.bench_come(control, number)
        done = 0
        for phase in (lib.BENCH_WARM, lib.BENCH_MEASURE):
            lib.bench_switches(control, number, phase)
            done = loop(desk, phase, done)
        lib.bench_switches(control, number, lib.BENCH_OVER)
        lib.bench_leave(control)

    def counted(self) -> None:
        """Let the counts be what they would be if the workers were written in C."""
        several = memoryview(self._counters).cast("Q")
        if self.plan.game == "array":
            self.arena.control.counter = sum(several)
        rings = ffi.cast("uint64_t *", ffi.from_buffer(self._rings))
        for number, worker in enumerate(self.arena.workers):
            library().bench_count_waits(
                worker,
                rings + number * fights.RING,
                fights.RING,
                worker.before,
                worker.before + worker.counted,
            )


def _processes(bench: Bench, lock: Any) -> tuple[list[Any], int]:
    """Play with a process for each worker: what they used, and how many had to be killed."""
    inherit = bench.entry.subject.inherit

    def work(number: int) -> None:
        if bench.plan.game == "convoy":
            threading.Thread(target=_busy, daemon=True).start()
        several = isinstance(lock, list)
        mine = [inherit(one) for one in lock] if several else inherit(lock)
        bench.fight(number, bench.desk(number, mine))

    with Crew(bench.plan, bench.arena, work) as crew:
        killed = lead(bench.arena, bench.plan)
    return crew.used, killed


def _threads(bench: Bench, lock: Any) -> tuple[list[Any], int]:
    """Play with threads of one process."""
    plan = bench.plan

    def work(_: int) -> None:
        def fight(number: int) -> None:
            bench.fight(number, bench.desk(number, bench.entry.subject.inherit(lock)))

        threads = [threading.Thread(target=fight, args=(number,)) for number in range(plan.processes)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    with Crew(replace(plan, processes=1), bench.arena, work) as crew:
        killed = lead(bench.arena, plan)
    # All tell the same, that of their process: it counts once.
    for worker in bench.arena.workers[1:]:
        worker.cpu_ns = 0
        for counts in (worker.switches, worker.preempted):
            for phase in range(library().BENCH_PHASES):
                counts[phase] = 0
    return crew.used + [_Nothing] * (plan.processes - 1), killed


class _Nothing:
    """What the threads beside the first have used: it is in the first one's figures."""

    ru_nvcsw = ru_nivcsw = 0


def _busy() -> None:
    while True:
        pass


PLAYERS: dict[str, Callable[[Bench, Any], tuple[list[Any], int]]] = {
    "contend": _processes,
    "convoy": _processes,
    "array": _processes,
    "threads": _threads,
}


def play(entry: Entry, plan: Slice) -> Sample:
    """One slice; OSError."""
    with entry.open(plan.processes, plan.game == "array") as lock:
        if plan.game == "death":
            return deaths.play(lock, entry.subject.inherit, plan)
        bench = Bench(entry, plan)
        busy = Busy()
        used, killed = PLAYERS[plan.game](bench, lock)
        bench.counted()
        bench.arena.check()
        sample = figures(bench.arena, used, killed, 1.0)
    return replace(sample, others=busy.others())


def main() -> None:
    """Serve standard input until it ends."""
    asked = json.loads(sys.stdin.readline())
    entry = Entry(subject(asked["subject"]), asked["policy"], asked["locks"])
    answer(entry.facts())
    for line in sys.stdin:
        answer(asdict(play(entry, Slice(**json.loads(line)))))
