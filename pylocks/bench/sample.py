"""What a slice gave: the figures that always stand together."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

from .csubjects import library

__all__ = ["Busy", "Sample", "jain", "percentile"]


@dataclass(frozen=True)
class Sample:
    """Waits are in ns; those still under way at the end count for the longest.

    None: the scenario has no such figure, or nothing happened that it could be about.
    """

    seconds: float
    acquisitions: int
    rate: float
    """Acquisitions a second."""
    jain: float | None = None
    """1: all got the same; 1/n: one got all."""
    p50: float | None = None
    p99: float | None = None
    p999: float | None = None
    max: float | None = None
    cpu: float | None = None
    """CPU seconds of all processes a second."""
    switches: float | None = None
    """Context switches for each acquisition."""
    preempted: float | None = None
    """Those among them that were not the process's own wish."""
    least: int | None = None
    """Acquisitions of the process that got least."""
    killed: int = 0
    """Processes that could not be stopped but by killing them."""
    violations: int = 0
    """Somebody else was seen inside, or the counter is wrong."""
    others: float | None = None
    """CPUs that other programs used meanwhile."""
    events: Mapping[str, float] = field(default_factory=dict)
    """What pylocks counted, for each acquisition (lock_event=counters)."""


def jain(counts: Sequence[int]) -> float | None:
    """Jain's index of fairness; None if nobody got anything."""
    squares = sum(count * count for count in counts)
    return sum(counts) ** 2 / (len(counts) * squares) if squares else None


def percentile(waits: Sequence[int], share: float, ticks_per_ns: float) -> float | None:
    """The wait, ns, that so many waits do not exceed, by their buckets; None if there was none."""
    wanted = share * sum(waits)
    seen = 0
    for bucket, count in enumerate(waits):
        seen += count
        if count and seen >= wanted:
            return float(library().bench_bucket_floor(bucket)) / ticks_per_ns
    return None


class Busy:
    """How much CPU time other programs use from now on."""

    def __init__(self) -> None:
        self._began, self._all, self._ours = time.monotonic(), _all(), _ours()

    def others(self) -> float:
        """CPUs that they have used on average; once our children have been reaped."""
        used = _all() - self._all - (_ours() - self._ours)
        return max(0.0, used / (time.monotonic() - self._began))


def _all() -> float:
    """CPU seconds that everybody has used since boot."""
    times: Any = psutil.cpu_times()
    return float(times.user + times.nice + times.system + times.irq + times.softirq + times.steal)


def _ours() -> float:
    """Those of this process and the children that it has reaped."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
