"""What the history of a row of chaos amounts to; pure, so that it can be tried with made-up ones.

Each function takes what was recorded and returns what it makes of it.  What the
participants judge by themselves while they run stands in csrc/probe/chaos.h.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .area import Report
from .plan import Death, Stall, Stop

#: Violations found by looking at the whole history, and what they mean.
FALSE_ALARM, SKIPPED, STUCK, SLOT_LOST, LEFT_BEHIND, NOT_FREE = (
    "false_alarm",
    "ticket_skipped",
    "stuck",
    "slot_lost",
    "left_behind",
    "not_free",
)
MEANING = {
    FALSE_ALARM: "acquire told of an owner's death that nobody died",
    SKIPPED: "tickets were passed over that nobody had given up",
    STUCK: "a lock was granted to nobody although somebody waited and nobody was stopped",
    SLOT_LOST: "after recover() a vCPU slot belonged to the dead",
    LEFT_BEHIND: "tombstones or parked waiters were counted after everybody had gone",
    NOT_FREE: "a lock was not free after everybody had gone",
}


def false_alarms(reports: Iterable[Report], deaths: Iterable[Death]) -> list[Report]:
    """Reports of an owner's death that no death explains; the rule stands in csrc/probe/chaos.h.

    A mark that was found, or a report before it that was not followed up, explains itself.
    Otherwise it takes a death in the grey zone, of which each explains one report.
    """
    grey: dict[int, list[Death]] = {}
    for death in sorted(deaths, key=lambda death: death.gone):
        for claim in death.claims:
            if not claim.marked and claim.phase != "inside":
                grey.setdefault(claim.lock, []).append(death)
    unexplained = []
    for report in sorted(reports, key=lambda report: report.at):
        if report.left is not None or report.sticky:
            continue
        candidates = grey.get(report.lock, [])
        # The earliest that fits: a later one may serve a later report.
        fits = (d for d in candidates if d.condemned < report.at and report.previous < d.gone)
        found = next(fits, None)
        if found is None:
            unexplained.append(report)
        else:
            candidates.remove(found)
    return unexplained


def skipped(
    tickets: Mapping[int, int], excuses: Mapping[int, int], deaths: Iterable[Death]
) -> dict[int, int]:
    """By lock, tickets that went to nobody and that neither leavers (excuses) nor deaths account for."""
    allowed = dict(excuses)
    for death in deaths:
        for lock in {claim.lock for claim in death.claims}:
            allowed[lock] = allowed.get(lock, 0) + 1
    return {
        lock: number - allowed.get(lock, 0)
        for lock, number in tickets.items()
        if number > allowed.get(lock, 0)
    }


#: Violations, each with what is known about it.
Found = list[tuple[str, dict[str, Any]]]


def leftovers(after: Mapping[str, Any]) -> Found:
    """Violations in what the auditor saw when everybody had gone; empty: nobody looked."""
    if not after:
        return []
    if "refused" in after:
        return [(NOT_FREE, after["refused"])]
    found: Found = [(SLOT_LOST, {})] * after["slots_of_the_dead"]
    left = {name: after[name] for name in ("tombstones", "tombstones_counted", "parked")}
    if any(left.values()):
        found.append((LEFT_BEHIND, left))
    return found + [(NOT_FREE, {"lock": lock}) for lock in after["not_free"]]


class StopIndex:
    """Answers how long somebody who mattered to a lock was stopped within a time."""

    def __init__(self, stops: Iterable[Stop], locks: int) -> None:
        self._stops = sorted(stops, key=lambda stop: stop.end)
        self._ends = [stop.end for stop in self._stops]
        self._longest = max((stop.end - stop.begin for stop in self._stops), default=0)
        self._upper = locks // 2

    def matters(self, stop: Stop, lock: int) -> bool:
        """Whether a process that was stopped there holds up this lock.

        It does with a claim on the lock, or with the domain's mutex, which every recovery takes;
        and on a lock of the lower half with a claim on one of the upper half, for which the
        holder may wait.
        """
        if stop.guard or lock in stop.locks:
            return True
        return lock < self._upper and any(other >= self._upper for other in stop.locks)

    def overlap(self, lock: int, begin: int, end: int) -> int:
        """Nanoseconds of that time for which at least one of them was stopped."""
        total, until = 0, begin
        near = []
        for number in range(bisect_left(self._ends, begin), len(self._stops)):
            stop = self._stops[number]
            if stop.end - self._longest >= end:
                break  # neither this nor any after it began in time
            if stop.begin < end and self.matters(stop, lock):
                near.append((stop.begin, stop.end))
        for first, last in sorted(near):
            first, last = max(first, until), min(last, end)
            if last > first:
                total += last - first
                until = last
        return total


@dataclass(frozen=True)
class StallTime:
    """How long a stall was, ns."""

    whole: int  #: from the kill
    net: int  #: while no living holder had the lock and nobody who mattered was stopped
    fed: int  #: without that in which the one it was granted to, and its holder, lacked a CPU, either


def stall_times(stalls: Iterable[Stall], stops: Iterable[Stop], locks: int) -> list[StallTime]:
    """How long each of the stalls was."""
    index = StopIndex(stops, locks)
    times = []
    for stall in stalls:
        whole = stall.end - stall.killed
        net = stall.end - stall.begin - index.overlap(stall.lock, stall.begin, stall.end)
        times.append(StallTime(whole, net, max(0, net - stall.starved)))
    return times


def quantiles(values: Sequence[int]) -> dict[str, int | None]:
    """Median, 99th percentile and maximum; None without values."""
    if not values:
        return {"p50": None, "p99": None, "max": None}
    ordered = sorted(values)

    def at(share: float) -> int:
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {"p50": at(0.5), "p99": at(0.99), "max": ordered[-1]}


def counts(deaths: Sequence[Death], processes: int) -> dict[str, Any]:
    """Where the killed were killed."""
    return {
        "kills": len(deaths),
        "kills_inside": sum(death.inside for death in deaths),
        "kills_waiting": sum(death.waiting for death in deaths),
        "kills_inside_and_waiting": sum(death.inside and death.waiting for death in deaths),
        "kills_releasing": sum(death.releasing for death in deaths),
        "kills_outside": sum(not death.claims and death.turns > 0 for death in deaths),
        "kills_starting": sum(death.turns == 0 for death in deaths),
        "kills_stopped": sum(death.stopped for death in deaths),
        "kills_per_seat": [sum(death.seat == seat for death in deaths) for seat in range(processes)],
    }


class Stuck:
    """Watches locks for which somebody waits and which nobody is granted."""

    def __init__(self, patience: int) -> None:
        """patience: ns of waiting, while nobody was stopped, after which a lock is stuck."""
        self._patience = patience
        self._waited: dict[int, tuple[int, int]] = {}  # lock -> (grants, ns waited since)
        self.found: dict[int, int] = {}  #: lock -> ns waited

    def look(self, waited_for: Iterable[int], grants: Mapping[int, int], elapsed: int) -> list[int]:
        """Locks that are stuck as of now.

        waited_for: those with a waiter; grants: how often each of these has been granted; elapsed:
        ns since the last look in which nobody was stopped.
        """
        fresh = []
        for lock in set(waited_for):
            before, waited = self._waited.get(lock, (grants[lock], -elapsed))
            waited = waited + elapsed if before == grants[lock] else 0
            self._waited[lock] = (grants[lock], waited)
            if waited > self._patience and lock not in self.found:
                self.found[lock] = waited
                fresh.append(lock)
        return fresh
