"""The memory that a row's workers write and its row process reads.

One anonymous shared mapping, made before the fork; csrc/probe/probe.h describes
what lies in it and why.  It belongs to nobody's file system, and outlives every
worker however that one died.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any

from pylocks._core import ffi, lib

PHASES = ("starting", "outside", "waiting", "inside", "releasing", "done")

#: Violations that workers find by themselves, by their number in the mapping.
KINDS: tuple[str, ...] = tuple(
    ffi.string(lib.plk_probe_violation_name(kind)).decode() for kind in range(lib.PLK_PROBE_KINDS)
)
MEANING: dict[str, str] = {
    name: ffi.string(lib.plk_probe_violation_text(kind)).decode() for kind, name in enumerate(KINDS)
}


@dataclass(frozen=True)
class Finding:
    """The first violation of one kind that one worker found."""

    kind: str
    worker: int
    lock: int
    got: int
    expected: int
    at: int  #: CLOCK_MONOTONIC, ns


@dataclass(frozen=True)
class Sample:
    """What one worker has written; complete even if the worker was killed."""

    phase: str
    lock: int
    waiting_since: int  #: CLOCK_MONOTONIC, ns; meaningful while phase is "waiting"
    acquisitions: int
    wait_sum: int  #: ns
    wait_max: int  #: ns
    last_at: int  #: CLOCK_MONOTONIC, ns; 0: never acquired
    waits: tuple[int, ...]  #: counts by bucket
    violations: dict[str, int]
    findings: tuple[Finding, ...]
    message: str  #: text of the worker's first exception


#: Those that only chaos looks for.
CHAOS_KINDS = KINDS[lib.PLK_PROBE_CHAOS_ONLY :]


class Area:
    """The mapping of one row."""

    def __init__(
        self,
        workers: int,
        locks: int,
        *,
        seed: int,
        cs_loops: int = 0,
        outside_loops: int = 0,
        limit: int = 0,
    ) -> None:
        """Lay out a zeroed mapping; ``limit`` 0 means: until the stop word is set.

        Raises OSError if there is no memory, ValueError for too many workers or locks.
        """
        self._attach(-1, self._size(workers, locks))
        lib.plk_probe_init(self.control, workers, locks, seed)
        self.workers, self.locks = workers, locks
        self.control.cs_loops = cs_loops
        self.control.outside_loops = outside_loops
        self.control.limit = limit

    def _size(self, workers: int, locks: int) -> int:
        """Bytes needed; ValueError."""
        size = int(lib.plk_probe_size(workers, locks))
        if size == 0:
            raise ValueError(f"no mapping for {workers} workers and {locks} locks")
        return size

    def _attach(self, fd: int, size: int) -> None:
        """Map a file, or with -1 fresh memory; OSError."""
        self._map = mmap.mmap(fd, size)
        self._view = ffi.from_buffer(self._map)
        self.control: Any = ffi.cast("struct plk_probe_control *", self._view)

    def worker(self, number: int) -> Any:
        """The worker's area, for the probe's functions."""
        return lib.plk_probe_worker_at(self.control, number)

    def lock(self, index: int) -> Any:
        """What the critical sections of that lock write."""
        return lib.plk_probe_lock_at(self.control, index)

    def acquisitions(self) -> int:
        """Acquisitions made so far by everybody."""
        return sum(int(self.worker(number).acquisitions) for number in range(self.workers))

    def counted(self) -> int:
        """What the non-atomic counters of all locks say."""
        return sum(int(self.lock(index).counter) for index in range(self.locks))

    def note(self, number: int, kind: str, error: BaseException) -> None:
        """Record that this worker's acquire or release raised."""
        lib.plk_probe_violated(self.control, self.worker(number), KINDS.index(kind), 0, 0)
        self.tell(number, error)

    def tell(self, number: int, error: BaseException) -> None:
        """Keep the text of the worker's first exception."""
        me = self.worker(number)
        if me.message[0] == b"\0":
            room = lib.PLK_PROBE_MESSAGE - 1
            text = f"{type(error).__name__}: {error}".encode()[:room]
            ffi.buffer(me.message)[: len(text)] = text

    def sample(self, number: int) -> Sample:
        """A copy of what the worker has written so far."""
        me = self.worker(number)
        return Sample(
            phase=PHASES[me.phase],
            lock=me.lock,
            waiting_since=me.waiting_since,
            acquisitions=me.acquisitions,
            wait_sum=me.wait_sum,
            wait_max=me.wait_max,
            last_at=me.last_at,
            waits=tuple(ffi.unpack(me.waits, lib.PLK_PROBE_BUCKETS)),
            violations={kind: int(me.violations[i]) for i, kind in enumerate(KINDS) if me.violations[i]},
            findings=tuple(
                Finding(kind, number, first.lock, first.got, first.expected, first.at)
                for i, kind in enumerate(KINDS)
                if me.violations[i]
                for first in (me.first[i],)
            ),
            message=ffi.string(me.message).decode(errors="replace"),
        )


def stamp_text(stamp: int) -> str:
    """Whose word it is that stands in a guarded line."""
    bits = int(lib.PLK_PROBE_STAMP_BITS)
    if stamp == 0:
        return "nobody's"
    return f"worker {(stamp >> bits) - 1}'s, of its acquisition {stamp & ((1 << bits) - 1):,}"


def bucket(ns: int) -> int:
    """The number of the bucket that counts a wait of ``ns``."""
    return int(lib.plk_probe_bucket(ns))


def bucket_floor(number: int) -> int:
    """The shortest wait, ns, that a bucket counts; the next bucket's is where it ends."""
    return int(lib.plk_probe_bucket_floor(number))


def now() -> int:
    """CLOCK_MONOTONIC, ns."""
    return int(lib.plk_probe_now())


def loops_per_ns() -> float:
    """Turns of the probe's work a nanosecond, from the fastest of several tries.

    The fastest, because everything that disturbs a try makes it slower.
    """
    loops = 100_000
    lib.plk_probe_time_work(loops)
    return loops / max(1, min(int(lib.plk_probe_time_work(loops)) for _ in range(25)))
