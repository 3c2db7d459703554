"""What a hypervisor service decides for all participants of its domain.

How long a waiter spins before it makes room, and by what it tells that a holder does not run.  The service
publishes both in the domain's header (csrc/hv/policy.h); they hold for as long as it lives and runs.

`auto` is about waste: a waiter that spins for a holder that has no CPU uses up the CPU which the holder
needs.  So the service takes the budget away while the participants are short of CPUs: while runnable ones
stand in a run queue, or the hypervisor below takes the CPUs away.  The kernel keeps account of both, so
nothing is sampled: of each thread, the time that it was runnable and did not run (schedstat); of the
machine, the time that was stolen.  Where nobody waits, nothing is changed.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pylocks import errors
from pylocks._core import lib
from pylocks.monitor import PreemptionMonitor

if TYPE_CHECKING:
    from pylocks.domain import Domain

__all__ = ["OWN", "PREEMPTION", "Auto", "Load", "Policy", "preemption_of", "spin_of", "spin_text"]

PREEMPTION = {
    "own": lib.PLK_TRUST_OWN,
    "off": lib.PLK_TRUST_NOTHING,
    "same_cpu": lib.PLK_TRUST_CPU,
    "bpf": lib.PLK_TRUST_MARKS,
}
"""What --preemption can be: as vcpu_preempted, or own, each participant's choice."""

OWN = ("own", lib.PLK_TRUST_OWN)
"""What spin_of() and preemption_of() say of a service that leaves both to the participants."""
LEASE_S = 5.0
"""A policy outlives the last look of its service by so much, if that is stopped."""
SHORT_QUEUED, CALM_QUEUED = 0.5, 0.2
"""Participants that stand in a run queue, on average: more is short of CPUs, less is not."""
SHORT_STEAL, CALM_STEAL = 0.10, 0.05
"""Share of the CPUs' time that the hypervisor below takes away, likewise."""
SERVED_WELL = 0.75
"""Of the waits, the share that spinning ends: it is then no waste, whatever the load."""
LOOKS_SHORT = 2
"""In a row, before the budget is taken away."""
LOOKS_CALM, LOOKS_MOST = 4, 64
"""In a row, before it is given back; twice as many each time that turns out to have been too early."""
MOST_THREADS = 512
"""Of more, every n-th is looked at."""

_UNITS = {"ns": 1, "us": 1_000, "ms": 1_000_000}
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)(ns|us|ms)")


def spin_of(text: str) -> int | str:
    """What --spin says: "own", "auto" or ns; ValueError."""
    if text in ("own", "auto"):
        return text
    if text == "off":
        return 0
    found = _BUDGET.fullmatch(text) if isinstance(text, str) else None
    ns = round(float(found[1]) * _UNITS[found[2]]) if found else -1
    if not 0 <= ns <= lib.PLK_SPIN_MOST_NS:
        most = lib.PLK_SPIN_MOST_NS // _UNITS["ms"]
        raise ValueError(f"spin is own, auto, off or a time such as 50us, {most}ms at most, not {text!r}")
    return ns


def spin_text(ns: int | None) -> str:
    """The other way round; None: own."""
    if ns is None:
        return "own"
    return f"{ns / 1000:g}us" if ns else "off"


def preemption_of(text: str) -> int:
    """What --preemption says: enum plk_trust; ValueError."""
    if text not in PREEMPTION:
        raise ValueError(f"preemption is {', '.join(PREEMPTION)}, not {text!r}")
    return int(PREEMPTION[text])


def told(trust: int) -> str | None:
    """What a published enum plk_trust is called; None: own, or none that there is."""
    return next((name for name, value in PREEMPTION.items() if value == trust and name != "own"), None)


@dataclass(frozen=True)
class Load:
    """What there was between two looks."""

    queued: float
    """Participants that were runnable and did not run, on average."""
    steal: float
    """Share of the CPUs' time that the hypervisor below took away."""
    waiting: int
    """Participants that wait for a lock, at the end."""
    waits: int = 0
    """Acquisitions that had to; none are counted where lock_event is off."""
    spin_grants: int = 0

    def __str__(self) -> str:
        return f"{self.queued:.2g} threads queue for a CPU, {self.steal:.0%} of their time is stolen"

    @property
    def short(self) -> bool:
        """There are fewer CPUs than are wanted, and it shows."""
        return self.queued >= SHORT_QUEUED or self.steal >= SHORT_STEAL

    @property
    def calm(self) -> bool:
        """There is a CPU for everybody."""
        return self.queued < CALM_QUEUED and self.steal < CALM_STEAL

    @property
    def wasteful(self) -> bool:
        """There are waiters, and as far as is counted they seldom spin for anything."""
        if self.waits:
            return self.spin_grants < SERVED_WELL * self.waits
        return self.waiting > 0


class Auto:
    """Takes the spin budget away, and gives it back, not at every turn of the load."""

    def __init__(self) -> None:
        self.off = False
        self._row = 0
        """Looks that have spoken for a change, without one between them that did not."""
        self._patience = LOOKS_CALM
        self._since = LOOKS_MOST
        """Looks since the last change."""

    def decide(self, load: Load) -> bool:
        """Take another look into account; True: the answer, `off`, has changed."""
        self._since += 1
        speaks = load.calm if self.off else load.short and load.wasteful
        self._row = self._row + 1 if speaks else 0
        if self._row < (self._patience if self.off else LOOKS_SHORT):
            return False
        if not self.off:
            early = self._since <= 2 * self._patience
            self._patience = min(2 * self._patience, LOOKS_MOST) if early else LOOKS_CALM
        self.off, self._row, self._since = not self.off, 0, 0
        return True


class Accounts:
    """The kernel's, and the domain's, from look to look."""

    def __init__(self, domain: Domain, root: Path = Path("/proc")) -> None:
        self._domain, self._root = domain, root
        self._before: tuple[dict[tuple[int, int], int], tuple[int, int], int, int, float] | None = None

    def look(self) -> Load | None:
        """Since the last look; None: it is the first, or the kernel does not say."""
        stats = self._domain.stats()
        now = (self._delays(), self._stolen(), stats.waits, stats.spin_grants, time.monotonic())
        before, self._before = self._before, now
        if before is None or now[4] <= before[4]:
            return None
        both = now[0].keys() & before[0].keys()
        delayed = sum(now[0][thread] - before[0][thread] for thread in both)
        scale = self._threads / len(both) if both else 0.0
        stolen, passed = (a - b for a, b in zip(now[1], before[1], strict=True))
        return Load(
            queued=delayed * scale / 1e9 / (now[4] - before[4]),
            steal=stolen / passed if passed > 0 else 0.0,
            waiting=self._waiting,
            waits=now[2] - before[2],
            spin_grants=now[3] - before[3],
        )

    def _delays(self) -> dict[tuple[int, int], int]:
        """Of each participant: ns for which it was runnable and did not run."""
        alive = [vcpu for vcpu in self._domain.vcpus() if vcpu.alive]
        self._threads = len(alive)
        self._waiting = sum(vcpu.waiting_for is not None for vcpu in alive)
        living = [(vcpu.pid, vcpu.tid) for vcpu in alive]
        found = {}
        for pid, tid in living[:: 1 + len(living) // MOST_THREADS]:
            try:
                text = (self._root / f"{pid}/task/{tid}/schedstat").read_text("ascii")
                found[pid, tid] = int(text.split()[1])
            except (OSError, ValueError, IndexError):
                continue  # ended, of another pid namespace, or a kernel without schedstat
        return found

    def _stolen(self) -> tuple[int, int]:
        """(stolen time, all time) of all CPUs, in ticks."""
        try:
            fields = (self._root / "stat").read_text("ascii").split("\n", 1)[0].split()[1:9]
            ticks = [int(field) for field in fields]
        except (OSError, ValueError):
            return 0, 0
        return (ticks[7] if len(ticks) == 8 else 0), sum(ticks)


def _seen() -> int:
    """What this process knows of its user's monitor: enum plk_monitor_state."""
    return int(lib.plk_monitor_look())


class Policy:
    """Of one service, from its first look to end()."""

    def __init__(self, domain: Domain, spin: str, preemption: str, tell: Callable[..., None]) -> None:
        """tell: is called with what is decided, and why; ValueError."""
        self._domain, self._tell = domain, tell
        self._spin, self._trust = spin_of(spin), preemption_of(preemption)
        self._preemption = preemption
        self._accounts = Accounts(domain)
        self._auto = Auto()
        self._monitor = PreemptionMonitor() if self._trust == lib.PLK_TRUST_MARKS else None
        self._told: tuple[Any, ...] | None = None
        self._began = False

    @property
    def _decides(self) -> bool:
        return (self._spin, self._trust) != OWN

    def look(self, segment: Any) -> None:
        """Decide anew, and publish; seldom, and by the service alone.

        The first time: MonitorError, if the marks of a monitor are asked for and can't be had.
        """
        if not self._decides:
            return
        if self._monitor is not None:
            self._keep_monitor()
        ns, why = self._budget()
        until = lib.plk_now() + int(LEASE_S * 1e9)
        lib.plk_policy_publish(segment, lib.PLK_SPIN_OWN if ns is None else ns, self._trust, until)
        if (ns, self._trust) != self._told:
            self._told = ns, self._trust
            self._tell(spin=spin_text(ns), preemption=self._preemption, reason=why)
        self._began = True

    def _budget(self) -> tuple[int | None, str]:
        """(ns or None: own, why)"""
        if isinstance(self._spin, int):
            return self._spin, "as told"
        if self._spin == "own":
            return None, "as told"
        load = self._accounts.look()
        if load is not None:
            self._auto.decide(load)
        return 0 if self._auto.off else None, str(load) if load is not None else "the first look"

    def _keep_monitor(self) -> None:
        """Have one: anybody's that this process may believe, else our own."""
        assert self._monitor is not None
        if self._monitor.running or _seen() == lib.PLK_MONITOR_SEEN:
            return
        try:
            self._monitor.start()
        except errors.MonitorError:
            # The user's has not answered yet; or there is none, and participants see that for themselves.
            if not self._began and _seen() not in (lib.PLK_MONITOR_SEEN, lib.PLK_MONITOR_ASKED):
                raise

    def end(self) -> None:
        """Let go of the monitor."""
        if self._monitor is not None:
            self._monitor.stop()
