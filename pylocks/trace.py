"""``pylocks trace``: what lock_event=trace has written to the rings of a domain's threads.

Each thread that uses the domain writes to a ring of its own, of a fixed size, and overwrites the
oldest records; a reader copies them meanwhile, and finds out which it was too late for.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pylocks import errors, perfetto
from pylocks._core import ffi, lib
from pylocks.domain import Domain
from pylocks.events import checked, names_of_locks
from pylocks.observe.attaching import attached, named
from pylocks.perfetto import Thread
from pylocks.stress.options import check_writable

if TYPE_CHECKING:
    from pylocks._core import CData

__all__ = ["Recorder", "add_parser"]

POLL_S = 0.02
CLOCK_S = 0.05  # between two looks at a clock, from which its rate is found
RECORDS = 2_000_000
"""At most so many are kept; a record takes some 100 bytes of the file."""


@dataclass
class _Ring:
    """What has been read of one ring."""

    next: int
    """Number of the first record that has not been read."""
    clock: int = 0
    parts: list[tuple[int, bytes]] = field(default_factory=list)
    """(number of the first, records)"""
    lost: int = 0


class Recorder:
    """Reads the rings of a domain, again and again.

    past: begin with what is there already; else, with what is written from now on.  ClosedError,
    DomainError, OSError.
    """

    def __init__(self, domain: Domain, *, past: bool) -> None:
        self._domain = domain
        self._room = ffi.new("struct plk_record[]", lib.PLK_RING_RECORDS)
        self._first = ffi.new("uint64_t *")
        self._rings: dict[int, _Ring] = {}
        self._clocks = self._look_at_clocks()
        self.count = 0
        if not past:
            for vcpu, view in self._views():
                self._rings[vcpu] = _Ring(view.next, view.clock)

    @staticmethod
    def _look_at_clocks() -> dict[int, tuple[int, int]]:
        """clock -> (its ticks, CLOCK_MONOTONIC in ns), of the same moment."""
        clocks = (lib.PLK_CLOCK_TSC, lib.PLK_CLOCK_MONOTONIC)
        return {clock: (lib.plk_ticks_now(clock), lib.plk_now()) for clock in clocks}

    def _views(self) -> list[tuple[int, CData]]:
        found = []
        with self._domain._guard:
            s = self._domain._live()
            for vcpu in range(min(lib.plk_vcpus_used(s), lib.plk_rings(s))):
                view = ffi.new("struct plk_tally_view *")
                checked(lib.plk_vcpu_tally_view(s, vcpu, view), self._domain)
                found.append((vcpu, view))
        return found

    def poll(self) -> None:
        """Copy what is new."""
        for vcpu, view in self._views():
            ring = self._rings.setdefault(vcpu, _Ring(0))
            if view.next <= ring.next:
                continue
            with self._domain._guard:
                s = self._domain._live()
                got = lib.plk_ring_read(s, vcpu, ring.next, self._room, self._first)
            got = checked(got, self._domain)
            first = int(self._first[0])
            ring.clock = view.clock
            if ring.parts:  # before the first of them, nothing was missed, but begun late
                ring.lost += first - ring.next
            if got:
                data = bytes(ffi.buffer(self._room, got * ffi.sizeof("struct plk_record")))
                ring.parts.append((first, data))
                self.count += got
            ring.next = first + got

    @property
    def lost(self) -> int:
        """Records that were overwritten before they were read."""
        return sum(ring.lost for ring in self._rings.values())

    @property
    def without_ring(self) -> int:
        """Threads registered now that are beyond the rings, and so not traced."""
        return sum(1 for vcpu in self._domain.vcpus() if vcpu.index >= lib.PLK_RINGS)

    def threads(self) -> list[Thread]:
        """What was read, thread by thread, with times in ns of CLOCK_MONOTONIC."""
        if not self.count:
            return []
        early = self._clocks
        while (now := self._look_at_clocks())[lib.PLK_CLOCK_MONOTONIC][1] - early[lib.PLK_CLOCK_MONOTONIC][
            1
        ] < CLOCK_S * 1e9:
            time.sleep(CLOCK_S / 5)
        found: list[Thread] = []
        for vcpu, ring in self._rings.items():
            if not ring.parts or ring.clock not in early:
                continue
            (ticks, ns), (later, later_ns) = early[ring.clock], now[ring.clock]
            rate = (later_ns - ns) / (later - ticks)
            found += self._split(vcpu, ring, lambda at, t=ticks, n=ns, r=rate: n + round((at - t) * r))  # type: ignore[misc]
        return found

    def _split(self, vcpu: int, ring: _Ring, ns: perfetto.Clock) -> list[Thread]:
        """The threads that have written to one ring, one after the other."""
        view = self._domain._vcpu(vcpu)
        records = [perfetto.record(raw, ns) for _, data in ring.parts for raw in perfetto.unpack(data)]
        joins = [i for i, one in enumerate(records) if one.kind == "joined"]
        threads = []
        # Without any registration in it, all of it is the slot's present thread's.
        if not joins and view is not None:
            return [Thread(vcpu, view.pid, view.tid, tuple(records))]
        if joins and joins[0] > 0:
            threads.append(Thread(vcpu, 0, 0, tuple(records[: joins[0]])))
        for start, end in zip(joins, [*joins[1:], len(records)], strict=True):
            joined = records[start]
            threads.append(Thread(vcpu, joined.ticket, joined.lock, tuple(records[start + 1 : end])))
        return threads


def timeline(domain: Domain, threads: Sequence[Thread]) -> dict[str, Any]:
    """The threads' records as a document for Perfetto, with the domain's names; DomainError."""
    cells = {
        one.lock - 1 for thread in threads for one in thread.records if 0 < one.lock <= domain.lock_limit
    }
    queues = {index for index in cells if domain.cell(index).flags & lib.PLK_CELL_QUEUE}
    return perfetto.chrome_trace(threads, names_of_locks(domain), domain.describe(), queues)


# ------------------------------------------------------------------ command


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``trace`` to the command line."""
    parser = commands.add_parser(
        "trace",
        help="write a timeline of a domain's locks for Perfetto or chrome://tracing",
        description="Write what the threads of a domain did with its locks as a timeline that "
        "ui.perfetto.dev and chrome://tracing open. Its programs have to run with "
        "PYLOCKS_OPS=lock_event=trace.",
    )
    parser.add_argument(
        "domain", metavar="DOMAIN", help="name of the domain, or @ and the beginning of its uid (pylocks ls)"
    )
    parser.add_argument(
        "--perfetto", metavar="FILE", required=True, help="where to write; - for standard output"
    )
    parser.add_argument(
        "--seconds", metavar="N", type=float, default=None,
        help="record for so long; without it, write what the rings hold now, the most recent past",
    )  # fmt: skip
    parser.add_argument(
        "--records", metavar="N", type=int, default=RECORDS, help=f"stop after so many (default: {RECORDS:,})"
    )
    parser.set_defaults(run=lambda given: main(parser, given))


def main(parser: argparse.ArgumentParser, given: argparse.Namespace) -> int:
    """Run what the arguments ask for; returns the exit status."""
    if given.seconds is not None and not 0 < given.seconds <= 86_400:
        parser.error(f"--seconds: more than 0 and at most 86,400, not {given.seconds:g}")
    if given.records < 1:
        parser.error(f"--records: at least 1, not {given.records}")
    check_writable(parser, "perfetto", None if given.perfetto == "-" else given.perfetto)
    try:
        with attached(named(given.domain)) as domain:
            recorder = record_for(domain, given.seconds, given.records)
            return _write(domain, recorder, given.perfetto)
    except (errors.PylocksError, ValueError) as error:
        print(f"pylocks trace: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"pylocks trace: {given.perfetto}: {error}", file=sys.stderr)
        return 1


def record_for(domain: Domain, seconds: float | None, most: int) -> Recorder:
    """What happens in so many seconds, until there are so many records, or until Ctrl-C; None: the past."""
    recorder = Recorder(domain, past=seconds is None)
    if seconds is None:
        recorder.poll()
        return recorder
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end and recorder.count < most:
            time.sleep(max(0, min(POLL_S, end - time.monotonic())))
            recorder.poll()
    except KeyboardInterrupt:
        print("pylocks trace: interrupted; what was recorded is written", file=sys.stderr)
    return recorder


def _write(domain: Domain, recorder: Recorder, path: str) -> int:
    threads = recorder.threads()
    if not threads:
        print(
            f"pylocks trace: {domain.describe()}: there is no record of anything; are its programs "
            "started with PYLOCKS_OPS=lock_event=trace?",
            file=sys.stderr,
        )
        return 1
    made = timeline(domain, threads)
    made["otherData"]["records overwritten before they were read"] = recorder.lost
    text = json.dumps(made)
    if path == "-":
        print(text)
    else:
        Path(path).write_text(text + "\n", encoding="utf-8")
    _tell(recorder, threads, sys.stderr if path == "-" else sys.stdout)
    return 0


def _tell(recorder: Recorder, threads: Sequence[Thread], stream: TextIO) -> None:
    print(f"{recorder.count:,} records of {len(threads)} threads", file=stream)
    if recorder.lost:
        print(f"{recorder.lost:,} more were overwritten before they could be read", file=stream)
    if recorder.without_ring:
        beyond = f"{recorder.without_ring} threads are not traced: a domain has {lib.PLK_RINGS} rings"
        print(beyond, file=stream)
