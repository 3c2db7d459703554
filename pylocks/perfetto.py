"""Records of lock_event=trace as a timeline in Chrome's trace event format, which Perfetto reads.

Each thread is a track.  A wait, a hold, a sleep and a kick are slices named by the lock; an arrow
leads from each kick to the sleeper that it woke.  Slices of one track have to be nested: where a
thread releases its locks in another order than the reverse, those that would cross others are
shown on a further track of the thread.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from pylocks._core import ffi, lib

__all__ = ["Clock", "Record", "Thread", "chrome_trace", "record", "unpack"]

Clock = Callable[[int], int]
"""From a record's ticks to ns."""

Raw = tuple[int, int]
TRACKS_APART = 100_000_000  # above every thread id: further tracks of a thread


@dataclass(frozen=True)
class Record:
    """One record of a ring."""

    ns: int
    kind: str
    lock: int
    """Index of the cell + 1."""
    ticket: int
    """Its low 28 bits."""


@dataclass(frozen=True)
class Thread:
    """What one thread wrote, in order."""

    vcpu: int
    pid: int
    """0: unknown; its registration has been overwritten."""
    tid: int
    records: tuple[Record, ...]


@dataclass(eq=False)
class _Slice:
    name: str
    category: str
    start: int
    end: int
    args: dict[str, Any]
    lane: int = 0


@dataclass
class _Told:
    """What the records of a thread come to."""

    slices: list[_Slice] = field(default_factory=list)
    marks: list[tuple[int, str]] = field(default_factory=list)
    kicks: list[tuple[_Slice, int, int]] = field(default_factory=list)
    """(slice, lock, ticket) of those that found a sleeper"""
    wakes: list[tuple[int, int, int, _Slice]] = field(default_factory=list)
    """(ns, lock, ticket, the sleep's slice)"""


def unpack(data: bytes) -> Iterator[Raw]:
    """(ticks, word) of each record."""
    return struct.iter_unpack("<QQ", data)


@cache
def _kind(number: int) -> str:
    pointer = lib.plk_point_name(number)
    return "" if pointer == ffi.NULL else ffi.string(pointer).decode()


def record(raw: Raw, ns: Clock) -> Record:
    """A record as it was written; of kind "" if that is none."""
    ticks, word = raw
    return Record(ns(ticks), _kind(word & 0xFF), word >> 8 & 0xFFFFFFF, word >> 36)


class _Reader:
    """Makes slices of one thread's records."""

    def __init__(
        self, thread: Thread, name_of: Callable[[int], str], is_queue: Callable[[int], bool], end: int
    ):
        self.told = _Told()
        self._name, self._is_queue, self._end = name_of, is_queue, end
        self._began = thread.records[0].ns if thread.records else end
        self._waits: dict[int, int] = {}
        self._holds: dict[int, tuple[int, int]] = {}
        self._sleep: int | None = None
        self._kick: tuple[int, int, int] | None = None
        for one in thread.records:
            handler = HANDLERS.get(one.kind)
            if handler is not None:
                handler(self, one)
        self._finish()

    def _add(self, what: str, lock: int, start: int, end: int, **args: Any) -> _Slice:
        name = self._name(lock) if what == "hold" else f"{what} {self._name(lock)}"
        made = _Slice(name, what, start, max(start, end), args)
        self.told.slices.append(made)
        return made

    def _began_to_wait(self, one: Record) -> None:
        self._gave_up(one)  # an end that was not recorded
        self._waits[one.lock] = one.ns

    def _gave_up(self, one: Record) -> None:
        if one.lock in self._waits:
            self._add("wait", one.lock, self._waits.pop(one.lock), one.ns, outcome="gave up")

    def _entered(self, one: Record) -> None:
        if self._is_queue(one.lock):
            return
        if one.lock in self._waits:
            self._add(
                "wait", one.lock, self._waits.pop(one.lock), one.ns, outcome="acquired", ticket=one.ticket
            )
        self._holds.setdefault(one.lock, (one.ns, one.ticket))

    def _left(self, one: Record) -> None:
        if one.lock in self._holds:
            start, ticket = self._holds.pop(one.lock)
            self._add("hold", one.lock, start, one.ns, ticket=ticket)
        else:
            self._add("hold", one.lock, self._began, one.ns, ticket=one.ticket, began="before the trace")

    def _parks(self, one: Record) -> None:
        self._sleep = one.ns

    def _woken(self, one: Record) -> None:
        if self._sleep is not None:
            made = self._add("sleep", one.lock, self._sleep, one.ns, ticket=one.ticket)
            self.told.wakes.append((one.ns, one.lock, one.ticket, made))
        self._sleep = None

    def _kicking(self, one: Record) -> None:
        self._kick = (one.ns, one.lock, one.ticket)

    def _kicks(self, one: Record) -> None:
        if self._kick is not None and self._kick[1:] == (one.lock, one.ticket):
            made = self._add("kick", one.lock, self._kick[0], one.ns, ticket=one.ticket)
            self.told.kicks.append((made, one.lock, one.ticket))
        self._kick = None

    def _empty_kicks(self, one: Record) -> None:
        if self._kick is not None:  # it had woken by itself
            self._add("kick", one.lock, self._kick[0], one.ns, ticket=one.ticket, woke="nobody")
        self._kick = None

    def _owner_deaths(self, one: Record) -> None:
        self.told.marks.append((one.ns, f"{self._name(one.lock)}: its holder died, recovered"))

    def _finish(self) -> None:
        for lock, start in self._waits.items():
            self._add("wait", lock, start, self._end, outcome="waits still")
        for lock, (start, ticket) in self._holds.items():
            self._add("hold", lock, start, self._end, ticket=ticket, ended="not in this trace")
        if self._sleep is not None:
            self.told.slices.append(_Slice("sleep", "sleep", self._sleep, self._end, {}))


HANDLERS: dict[str, Callable[[_Reader, Record], None]] = {
    "waits": _Reader._began_to_wait,
    "gave_up": _Reader._gave_up,
    "abandons": _Reader._gave_up,
    "entered": _Reader._entered,
    "granted": _Reader._entered,
    "left": _Reader._left,
    "parks": _Reader._parks,
    "woken": _Reader._woken,
    "kicking": _Reader._kicking,
    "kicks": _Reader._kicks,
    "empty_kicks": _Reader._empty_kicks,
    "owner_deaths": _Reader._owner_deaths,
}
"""What each kind of record means for the timeline; the others mean nothing."""


def _lay_out(slices: list[_Slice]) -> int:
    """Give each slice a lane in which no two cross; how many lanes there are."""
    lanes: list[list[_Slice]] = []
    for one in sorted(slices, key=lambda s: (s.start, -s.end)):
        for lane in lanes:
            while lane and lane[-1].end <= one.start:
                lane.pop()
        one.lane = next(
            (n for n, lane in enumerate(lanes) if not lane or one.end <= lane[-1].end), len(lanes)
        )
        if one.lane == len(lanes):
            lanes.append([])
        lanes[one.lane].append(one)
    return len(lanes)


def chrome_trace(
    threads: Sequence[Thread], names: Mapping[int, str], title: str, queues: Collection[int] = ()
) -> dict[str, Any]:
    """The timeline.  names: of locks, by index of cells; queues: cells that are queues of bounded locks."""

    def name_of(lock: int) -> str:
        return names.get(lock - 1, f"lock {lock - 1}")

    def is_queue(lock: int) -> bool:
        return lock - 1 in queues

    times = [one.ns for thread in threads for one in thread.records]
    start, end = min(times, default=0), max(times, default=0)
    events: list[dict[str, Any]] = []
    kicks: list[tuple[_Slice, int, int, Thread]] = []
    wakes: list[tuple[int, int, int, _Slice, Thread]] = []

    def at(ns: int) -> float:
        return (ns - start) / 1000  # microseconds, says the format

    def track(thread: Thread, lane: int) -> dict[str, int]:
        return {"pid": thread.pid, "tid": (thread.tid or thread.vcpu) + lane * TRACKS_APART}

    for thread in threads:
        told = _Reader(thread, name_of, is_queue, end).told
        lanes = _lay_out(told.slices)
        events += _titles(thread, max(1, lanes), track)
        for one in told.slices:
            events.append(
                {"name": one.name, "cat": one.category, "ph": "X", "ts": at(one.start),
                 "dur": (one.end - one.start) / 1000, **track(thread, one.lane), "args": one.args}
            )  # fmt: skip
        for ns, text in told.marks:
            events.append(
                {"name": text, "cat": "death", "ph": "i", "s": "t", "ts": at(ns), **track(thread, 0)}
            )
        kicks += [(*kick, thread) for kick in told.kicks]
        wakes += [(*wake, thread) for wake in told.wakes]
    events += _arrows(kicks, wakes, at, track)
    return {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"title": f"pylocks: {title}"}}


def _arrows(
    kicks: list[tuple[_Slice, int, int, Thread]],
    wakes: list[tuple[int, int, int, _Slice, Thread]],
    at: Callable[[int], float],
    track: Callable[[Thread, int], dict[str, int]],
) -> Iterator[dict[str, Any]]:
    """From each kick to the sleep that it ended."""
    waiting: dict[tuple[int, int], list[tuple[_Slice, Thread]]] = {}
    for made, lock, ticket, thread in sorted(kicks, key=lambda kick: kick[0].start):
        waiting.setdefault((lock, ticket), []).append((made, thread))
    number = 0
    for ns, lock, ticket, sleep, thread in sorted(wakes, key=lambda wake: wake[0]):
        sent = waiting.get((lock, ticket), [])
        if not sent or sent[0][0].start > ns:
            continue
        kick, kicker = sent.pop(0)
        number += 1
        common = {"name": "kick", "cat": "kick", "id": number}
        yield {**common, "ph": "s", "ts": at(kick.start), **track(kicker, kick.lane)}
        # Inside the sleep: at its very end, rounding may put the arrow's head into what lies around it.
        head = at(max(sleep.start, sleep.end - 1))
        yield {**common, "ph": "f", "bp": "e", "ts": head, **track(thread, sleep.lane)}


def _titles(
    thread: Thread, lanes: int, track: Callable[[Thread, int], dict[str, int]]
) -> Iterator[dict[str, Any]]:
    """Names of the process and the thread."""
    process = _comm(f"/proc/{thread.pid}/comm") or "process" if thread.pid else "threads unknown"
    name = (
        _comm(f"/proc/{thread.pid}/task/{thread.tid}/comm") or "thread" if thread.pid else "an earlier thread"
    )
    yield {"name": "process_name", "ph": "M", **track(thread, 0), "args": {"name": process}}
    for lane in range(lanes):
        text = f"{name} (vCPU {thread.vcpu})" + (f", further locks {lane}" if lane else "")
        yield {"name": "thread_name", "ph": "M", **track(thread, lane), "args": {"name": text}}


def _comm(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace").strip()
    except OSError:
        return ""  # it has ended
