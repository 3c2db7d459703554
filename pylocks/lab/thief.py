"""The thief: a process that takes the CPU from vCPUs as a hypervisor does, by SIGSTOP and SIGCONT.

It reads from the domain who holds the lock and who is next, and takes part in nothing.  A process can't
be stopped at the very moment at which it was seen to be the holder; so it is stopped first, and then,
when it can't move any more, looked at again: if it is not the one that is meant, it goes on at once, and
the attempt is counted as missed.

However the slice ends, nobody is left stopped: the thief lets all go on when it ends, its parent does so
as soon as the thief has ended in any way, and if the parent is killed the vCPUs are killed with it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import count
from types import TracebackType
from typing import Any

import pylocks
from pylocks.bench.arena import Arena, child
from pylocks.bench.csubjects import library

from .plan import StolenSlice

__all__ = ["Heist", "Loot", "Scene", "Thief", "VCpu", "events"]

NAP_S = 20e-6
LOOK_S = 0.002
"""Between two looks at whether the slice is over."""
GONE = b"ZX"
STOPPED = b"Tt"
MOST_STOPS = 2_000
"""That are kept for the picture."""


@dataclass
class Loot:
    """What was stolen while the window was open."""

    stolen: float | None = 0.0
    """Of the vCPUs' time, the part in which they were stopped; None: the kernel does it, and does not say."""
    slices: int = 0
    """Times that somebody was stopped for a slice, or a quota was used up."""
    missed: int = 0
    """Times that a vCPU was stopped that was not the one that is meant, and so went on at once."""
    burnt: float | None = None
    """CPU seconds that all vCPUs used for each second that the one aimed at was stopped."""
    passed: float | None = None
    """Acquisitions by all vCPUs in each such second."""
    stops: list[tuple[int, float, float]] = field(default_factory=list)
    """(vCPU, from, to), seconds since the window opened."""
    cpu: float = 0.0
    """CPU seconds that the thief itself used for each second of the window."""


class VCpu:
    """A process that can be stopped."""

    def __init__(self, number: int, pid: int) -> None:
        self.number, self.pid = number, pid
        self.since: int | None = None
        self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        self._clock = (~pid << 3) | 2  # the kernel's number of the process's CPU clock

    def state(self) -> int:
        """The letter that /proc has for it."""
        try:
            text = os.pread(self._stat, 512, 0)
        except ProcessLookupError:
            return GONE[0]
        return text[text.rindex(b")") + 2]

    def cpu_ns(self) -> int:
        """CPU time that it has used."""
        try:
            return time.clock_gettime_ns(self._clock)
        except OSError:
            return 0

    def close(self) -> None:
        """Look no more."""
        os.close(self._stat)

    def signal(self, number: signal.Signals) -> None:
        """Send it."""
        os.kill(self.pid, number)  # its parent, which is ours, has not waited for it: the pid is its own


@dataclass(frozen=True)
class Scene:
    """Where it happens."""

    plan: StolenSlice
    arena: Arena
    lock: pylocks.TicketLock


def events(chance: random.Random, plan: StolenSlice, vcpus: int) -> list[tuple[int, bool, int]]:
    """What happens in a period: (ns after it began, whether a stop begins, number of the vCPU), in order."""
    length = round(plan.steal * plan.period_ns)
    found = []
    together = chance.randrange(plan.period_ns - length + 1)
    for number in range(vcpus):
        alone = chance.randrange(plan.period_ns - length + 1)
        when = together if plan.aim == "gang" else alone
        found += [(when, True, number), (when + length, False, number)]
    return sorted(found)


class Heist:
    """The thief's work, in its own process."""

    def __init__(self, scene: Scene) -> None:
        self.plan, self.arena, self.lock = scene.plan, scene.arena, scene.lock
        self.domain, self.index = scene.lock.domain, scene.lock.index
        self.vcpus: list[VCpu] = []
        self.chance = random.Random(scene.plan.seed)
        self.length = round(scene.plan.steal * scene.plan.period_ns)
        self.loot = Loot()
        self.opened: int | None = None
        self._stopped_ns = self._slice_ns = self._burnt_ns = self._passed = 0

    def run(self) -> Loot:
        """Until the slice is over."""
        if self.plan.thief_cpus:
            os.sched_setaffinity(0, self.plan.thief_cpus)
        while self.arena.control.phase == library().BENCH_GATHER:
            time.sleep(LOOK_S)
        self.vcpus = [VCpu(number, worker.pid) for number, worker in enumerate(self.arena.workers)]
        try:
            if self.plan.aim == "holder":
                self.strike(self.holder, self.is_holder)
            elif self.plan.aim == "next":
                self.strike(self.next_in_line, self.is_next)
            else:
                self.strike_at_random()
        finally:
            for vcpu in self.vcpus:
                self.release(vcpu)
        self.account()
        return self.loot

    # ------------------------------------------------------------- time

    def going(self) -> bool:
        """Whether the slice goes on; notes when the window opened."""
        phase = self.arena.control.phase
        if self.opened is None and phase == library().BENCH_MEASURE:
            self.opened = time.monotonic_ns()
            self._cpu = time.process_time_ns()
        return bool(phase != library().BENCH_OVER)

    def sleep_until(self, when: int) -> bool:
        """Whether the slice still goes on then."""
        while self.going():
            left = (when - time.monotonic_ns()) / 1e9
            if left <= 0:
                return True
            time.sleep(min(left, LOOK_S))
        return False

    # ------------------------------------------------------------ stops

    def stop(self, vcpu: VCpu) -> None:
        """And return when it can't move any more."""
        vcpu.signal(signal.SIGSTOP)
        while vcpu.state() not in STOPPED + GONE and self.going():
            time.sleep(NAP_S)
        vcpu.since = time.monotonic_ns()

    def release(self, vcpu: VCpu) -> None:
        """Let it go on."""
        vcpu.signal(signal.SIGCONT)
        if vcpu.since is not None and self.opened is not None:
            began, ended = max(vcpu.since, self.opened), time.monotonic_ns()
            self._stopped_ns += max(0, ended - began)
            if len(self.loot.stops) < MOST_STOPS:
                stop = (vcpu.number, (began - self.opened) / 1e9, (ended - self.opened) / 1e9)
                self.loot.stops.append(stop)
        vcpu.since = None

    def account(self) -> None:
        """Make shares of what was counted."""
        loot, window = self.loot, self.arena.control.window_ns
        if self.opened is None or window == 0:
            return
        loot.stolen = self._stopped_ns / window / len(self.vcpus)
        loot.cpu = (time.process_time_ns() - self._cpu) / window
        if self._slice_ns:
            loot.burnt = self._burnt_ns / self._slice_ns
            loot.passed = self._passed * 1e9 / self._slice_ns

    # -------------------------------------------------------- at random

    def strike_at_random(self) -> None:
        """Each vCPU at a time of its own in every period, or all at once."""
        began = time.monotonic_ns()
        for number in count():
            at = began + number * self.plan.period_ns
            for after, begins, who in events(self.chance, self.plan, len(self.vcpus)):
                if not self.sleep_until(at + after):
                    return
                if begins:
                    self.vcpus[who].signal(signal.SIGSTOP)
                    self.vcpus[who].since = time.monotonic_ns()
                    self.loot.slices += self.opened is not None
                else:
                    self.release(self.vcpus[who])

    # ------------------------------------------------------ at somebody

    def strike(self, find: Callable[[], VCpu | None], found: Callable[[VCpu], bool]) -> None:
        """Once in every period."""
        room = self.plan.period_ns - self.length
        at = time.monotonic_ns()
        while self.sleep_until(at + self.chance.randrange(room + 1)):
            vcpu = self.hunt(find, found)
            if vcpu is None:
                return
            self.hold(vcpu)
            at = max(at + self.plan.period_ns, time.monotonic_ns())

    def hunt(self, find: Callable[[], VCpu | None], found: Callable[[VCpu], bool]) -> VCpu | None:
        """The one that is meant, stopped; None: the slice is over."""
        while self.going():
            vcpu = find()
            if vcpu is None:
                time.sleep(NAP_S)
                continue
            self.stop(vcpu)
            if found(vcpu):
                return vcpu
            self.release(vcpu)
            self.loot.missed += self.opened is not None
            time.sleep(NAP_S * self.chance.randrange(1, 10))  # else nobody would get on while we miss
        return None

    def hold(self, vcpu: VCpu) -> None:
        """Keep it stopped for a slice, see what the others do, and let it go."""
        counts = self.opened is not None
        before = self.seen()
        self.sleep_until(before[0] + self.length)
        after = self.seen()
        if counts:
            spent = [late - early for early, late in zip(before, after, strict=True)]
            self._slice_ns += spent[0]
            self._burnt_ns += spent[1]
            self._passed += spent[2]
            self.loot.slices += 1
        self.release(vcpu)

    def seen(self) -> tuple[int, int, int]:
        """Now; CPU time and acquisitions of all vCPUs."""
        acquisitions = sum(int(worker.acquisitions) for worker in self.arena.workers)
        return time.monotonic_ns(), sum(vcpu.cpu_ns() for vcpu in self.vcpus), acquisitions

    def of_pid(self, pid: int) -> VCpu | None:
        """The vCPU that is this process."""
        return next((vcpu for vcpu in self.vcpus if vcpu.pid == pid), None)

    def owner(self, index: int) -> VCpu | None:
        """Who holds the lock at that cell."""
        owner = self.domain.owner(index)
        return None if owner is None else self.of_pid(owner.pid)

    def holder(self) -> VCpu | None:
        """Who holds the lock."""
        return self.owner(self.index)

    def is_holder(self, vcpu: VCpu) -> bool:
        """Whether that, stopped, holds it."""
        return self.holder() is vcpu

    def next_in_line(self) -> VCpu | None:
        """Who comes next; of a bounded lock, who holds its queue, which is the cell behind."""
        if self.lock.policy == "bounded":
            return self.owner(self.index + 1)
        head = self.domain.cell(self.index).head
        waiting = [(ticket, pid) for ticket, pid in self.tickets() if ticket > head]
        return self.of_pid(min(waiting)[1]) if waiting else None

    def is_next(self, vcpu: VCpu) -> bool:
        """Whether that, stopped, is still in the queue; returns when its turn has come."""
        if self.lock.policy == "bounded":
            return self.owner(self.index + 1) is vcpu
        mine = next((ticket for ticket, pid in self.tickets() if pid == vcpu.pid), None)
        if mine is None or self.holder() is vcpu:
            return False
        while self.domain.cell(self.index).head < mine:
            if not self.going():
                return False
            time.sleep(NAP_S)
        return True

    def tickets(self) -> Iterator[tuple[int, int]]:
        """(ticket, pid) of who asks for the lock."""
        for seen in self.domain.vcpus():
            if seen.waiting_for == self.index and seen.ticket is not None:
                yield seen.ticket, seen.pid


class Thief:
    """The process; ended, and everybody let go, when the `with` block ends."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._report = os.memfd_create("pylocks-lab")
        self._status: int | None = None

        def work() -> None:
            loot = Heist(scene).run()
            os.write(self._report, json.dumps(asdict(loot)).encode())

        self._pid = child(work)
        self._pidfd = os.pidfd_open(self._pid)
        self._watch = threading.Thread(target=self._await)
        self._watch.start()

    def __enter__(self) -> Thief:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        self._watch.join()
        os.close(self._pidfd)
        os.close(self._report)

    def _await(self) -> None:
        """Let everybody go on as soon as it has ended: those whom it left stopped keep the others waiting."""
        self._status = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        for worker in self._scene.arena.workers:
            if worker.pid:
                os.kill(worker.pid, signal.SIGCONT)  # its own: the crew waits for it after us

    def loot(self) -> dict[str, Any]:
        """What it got, once the slice is over; OSError if it failed."""
        self._watch.join()
        if self._status != 0:
            raise OSError(f"the thief ended with status {self._status}; what it said stands above")
        found: dict[str, Any] = json.loads(os.pread(self._report, os.fstat(self._report).st_size, 0))
        return found
