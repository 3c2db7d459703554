"""The process of one row: ``python -m pylocks.stress.row``, started by the runner.

It reads its plan, one line of JSON, from standard input; creates the locks,
forks the workers, starts them together, stops them, and prints JSON lines: now
and then ``{"progress": ...}``, in the end ``{"row": ...}``.  A second line on
its standard input cuts the row short; the end of that input means that the
runner is gone, and so is the row.
"""

from __future__ import annotations

import faulthandler
import json
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Protocol, TypeVar

import psutil

from pylocks._core import lib

from .crew import Crew
from .report import build
from .shared import Area, now
from .subjects import Opened, Subject, hypervisor, open_locks, subjects

TICK = 0.1  #: seconds between two looks at a running row, and two lines of progress
DRAIN_TICK = 0.002  #: seconds between two looks at workers that are about to leave
COLLAPSE_GRACE = 0.1  #: seconds after which a collapsed row's workers are killed
STALL = 15.0  #: seconds without any progress after which a waiter is lost; others may keep the CPUs busy


P = TypeVar("P", bound="Plan")


class Runs(Protocol):
    """A row that can be run."""

    def run(self) -> dict[str, Any]:
        """Run it and return its result; may raise RunnerGone."""


class RunnerGone(Exception):
    """The process that started the row has died."""


@dataclass(frozen=True)
class Plan:
    """What a row is asked to do."""

    #: Of this package; its main() runs such a row.
    module: ClassVar[str] = "row"
    parent: int  #: pid of the runner
    slow_path: str
    policy: str
    overcommit: float
    processes: int
    locks: int
    seconds: float | None  #: None: until the acquisitions are made
    acquisitions: int | None  #: None: until the time is over
    cs_ns: int
    outside_ns: int
    cs_loops: int
    outside_loops: int
    seed: int

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls: type[P], line: str) -> P:
        """The inverse of to_json."""
        return cls(**json.loads(line))


class Race:
    """One row from the start to its result."""

    def __init__(self, plan: Plan, subject: Subject, opened: Opened) -> None:
        self.plan = plan
        self.subject = subject
        self.opened = opened
        self.area = Area(
            plan.processes,
            plan.locks,
            seed=plan.seed,
            cs_loops=plan.cs_loops,
            outside_loops=plan.outside_loops,
            limit=plan.acquisitions or 0,
        )
        cpus = len(os.sched_getaffinity(0))
        busy = (plan.cs_ns + plan.outside_ns) / 1e9 * max(1.0, plan.processes / cpus)
        self._stall = STALL + 4 * busy
        self._done = -1
        self._living = plan.processes
        self._progressed = 0.0
        self.started = self.stopped = 0  # CLOCK_MONOTONIC, ns
        self.ended = "deadline"
        self.lost: list[int] = []  # numbers of workers that did not come out
        self.killed = 0
        self.gate = Gate(self.area, opened.locks)

    def run(self) -> dict[str, Any]:
        """Run the row and return its result; no worker is left afterwards.

        Raises RunnerGone, or OSError if the workers can't be forked.
        """
        self.crew = Crew(self.area, self.opened.locks, ticketed=self.opened.ticketed)
        try:
            with self.gate:
                self._gather()
                machine = Machine.look()
                self.started = self.area.control.opened = now()
            self._fight()
            self.area.control.stop = 1
            self.stopped = now()
            self._drain()
            row = build(self, machine, Machine.look())
        finally:
            self.crew.close()
        return row

    def _gather(self) -> None:
        """Wait until everybody stands at the barrier, let them go, and wait until all queue."""
        control, workers = self.area.control, self.area.workers
        self._until(lambda: self.crew.reap() < workers or control.ready == workers)
        lib.plk_probe_go(control)
        self._until(lambda: lib.plk_probe_waiting(control) >= self.crew.reap())

    def _until(self, reached: Callable[[], bool]) -> None:
        said = time.monotonic()
        while not reached() and self.ended != "interrupted":
            if asked_to_stop(DRAIN_TICK):
                self.ended = "interrupted"
            if time.monotonic() - said > TICK:
                said = time.monotonic()
                tell({"progress": {"elapsed": 0.0, "acquisitions": 0}})

    def _fight(self) -> None:
        """Let them fight until time, count or the runner ends it."""
        if self.ended == "interrupted":
            return
        deadline = None if self.plan.seconds is None else self.started / 1e9 + self.plan.seconds
        self._progressed = time.monotonic()
        while True:
            at = time.monotonic()
            left = TICK if deadline is None else min(TICK, deadline - at)
            if left <= 0:
                return
            if asked_to_stop(left):
                self.ended = "interrupted"
                return
            moved = self._moved()
            if self._living == 0:
                self.ended = "count"
                return
            # A row with a deadline is judged when that has come.
            if deadline is None and not moved and time.monotonic() - self._progressed > 2 * self._stall:
                self.ended = "stalled"
                return
            tell({"progress": {"elapsed": (now() - self.started) / 1e9, "acquisitions": self._done}})

    def _drain(self) -> None:
        """Let those who wait come out, as long as they can be expected to."""
        since = self._progressed = time.monotonic()
        impatient = self.subject.collapses or self.ended == "interrupted"
        while self.crew.reap():
            if impatient and time.monotonic() - since >= COLLAPSE_GRACE:
                break
            if not self._moved() and time.monotonic() - self._progressed > self._stall:
                break
            if asked_to_stop(DRAIN_TICK):
                self.ended = "interrupted"
                break
        self.crew.reap()
        if not impatient and self.ended != "interrupted":
            self.lost = self.crew.living()
        self.queues = {number: self._queue(number) for number in self.lost}
        self.killed = self.crew.kill()

    def _moved(self) -> bool:
        """Whether anybody has acquired or left since the last look."""
        done, living = self.area.acquisitions(), self.crew.reap()
        moved = (done, living) != (self._done, self._living)
        self._done, self._living = done, living
        if moved:
            self._progressed = time.monotonic()
        return moved

    def _queue(self, number: int) -> dict[str, Any]:
        """The state of the queue in which this worker stands, for the report."""
        sample = self.area.sample(number)
        state: dict[str, Any] = {"phase": sample.phase, "lock": sample.lock}
        if sample.phase == "waiting":
            state["waited_ns"] = now() - max(sample.waiting_since, self.started)
        domain = self.opened.domain
        if domain is not None:
            lock = self.opened.locks[sample.lock]
            pid = self.crew.pid(number)
            state["served_ticket"] = lock.ticket
            state["waiting_ticket"] = next((v.ticket for v in domain.vcpus() if v.pid == pid), None)
            state["waiters"] = lock.waiters
        return state


class Gate:
    """All locks of the row, held while the queues form; the holder is an occupant like any other."""

    def __init__(self, area: Area, locks: Sequence[Any]) -> None:
        self._area = area
        self._locks = locks
        self.error: str | None = None  #: what a release raised: the lock had let in somebody else

    def __enter__(self) -> None:
        for index, lock in enumerate(self._locks):
            lock.acquire()
            lib.plk_probe_hold(self._area.control, index, 1)

    def __exit__(self, *_: object) -> None:
        for index, lock in enumerate(self._locks):
            lib.plk_probe_hold(self._area.control, index, 0)
            try:
                lock.release()
            except Exception as error:
                self.error = f"{type(error).__name__}: {error}"


@dataclass(frozen=True)
class Machine:
    """How busy the CPUs that we may use have been since boot, in CPU seconds."""

    at: float  #: time.monotonic()
    busy: float
    stolen: float  #: by the hypervisor

    @classmethod
    def look(cls) -> Machine:
        """As it is now."""
        times = psutil.cpu_times(percpu=True)
        ours = [times[cpu] for cpu in os.sched_getaffinity(0) if cpu < len(times)]
        stolen = sum(t.steal for t in ours)
        busy = sum(t.user + t.nice + t.system + t.irq + t.softirq for t in ours)
        return cls(time.monotonic(), busy, stolen)


def asked_to_stop(seconds: float) -> bool:
    """Sleep so long, unless the runner speaks: then True.  Raises RunnerGone."""
    ready, _, _ = select.select([0], [], [], max(0.0, seconds))
    if not ready:
        return False
    if os.read(0, 64) == b"":
        raise RunnerGone
    return True


def tell(message: dict[str, Any]) -> None:
    """One line to the runner; raises RunnerGone if nobody reads it."""
    try:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        raise RunnerGone from None


def main() -> int:
    """Entry point of the row process; returns its exit status."""
    return serve(Plan, Race)


def serve(kind: type[P], race: Callable[[P, Subject, Opened], Runs]) -> int:
    """Read a plan of that kind, run the row that `race` makes of it, and tell its result."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the runner decides what Ctrl-C means
    faulthandler.register(signal.SIGUSR1)  # and asks a process that is stuck where it is
    with open(0, "rb", buffering=0, closefd=False) as plans:
        plan = kind.from_json(plans.readline().decode())
    if lib.plk_probe_die_with(plan.parent) != 0:
        return 1
    subject = subjects()[plan.slow_path]
    opened = open_locks(subject, plan.locks, plan.processes, plan.policy)
    try:
        with hypervisor(subject, opened):
            tell({"row": race(plan, subject, opened).run()})
    except RunnerGone:
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
