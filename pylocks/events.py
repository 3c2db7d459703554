"""What lock_event=counters has counted, for each domain and each lock: frozen copies.

Reading takes no lock, stops nobody and reserves no memory.  A copy that is made while it is written
to may be one time ahead in its counts of what is in its sum.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pylocks import errors
from pylocks._core import ffi, lib
from pylocks.views import Stats

if TYPE_CHECKING:
    from pylocks._core import CData
    from pylocks.domain import Domain

__all__ = ["BOUNDS_NS", "DomainEvents", "Histogram", "LockEvents", "domain_events", "lock_events"]

BOUNDS_NS = tuple(1 << (lib.PLK_BUCKET_BITS + i) for i in range(lib.PLK_BUCKETS - 1))
"""Upper bounds of a histogram's buckets, ns, each twice the one before; the last bucket has none."""


@dataclass(frozen=True)
class Histogram:
    """How long something took."""

    counts: tuple[int, ...]
    """Times in each bucket: below BOUNDS_NS[i] and in no bucket before; the last: all longer ones."""
    sum_ns: int

    @property
    def count(self) -> int:
        """All times."""
        return sum(self.counts)

    def quantile(self, q: float) -> float | None:
        """Upper bound, ns, of the bucket that the q-quantile is in (inf: the last); None: nothing counted."""
        if not 0 <= q <= 1:
            raise ValueError(f"a quantile is between 0 and 1, not {q!r}")
        rank, seen = q * self.count, 0
        for bound, count in zip((*BOUNDS_NS, float("inf")), self.counts, strict=True):
            seen += count
            if count and seen >= rank:
                return float(bound)
        return None

    def __add__(self, other: Histogram) -> Histogram:
        counts = tuple(a + b for a, b in zip(self.counts, other.counts, strict=True))
        return Histogram(counts, self.sum_ns + other.sum_ns)


EMPTY = Histogram((0,) * lib.PLK_BUCKETS, 0)


@dataclass(frozen=True)
class LockEvents:
    """What was counted of one lock, since it was made."""

    index: int
    name: str | None
    acquisitions: int
    """Tickets served; one that was abandoned counts, too.  Counted always, whoever counts the rest."""
    contended: int
    """Acquisitions that had to queue."""
    parks: int
    spurious: int
    kicks: int
    abandons: int
    owner_deaths: int
    """Holders that died inside, after which it was recovered."""
    wait: Histogram
    """From joining the queue to entering, of those that had to queue and did enter."""
    hold: Histogram
    """From entering to releasing: of contended acquisitions, and a sample of the others."""

    @property
    def counted(self) -> bool:
        """Something was counted of it besides acquisitions."""
        return bool(self.contended or self.owner_deaths or self.hold.count)


@dataclass(frozen=True)
class DomainEvents:
    """What was counted of all locks of a domain, those without figures of their own among them."""

    acquisitions: int
    stats: Stats
    wait: Histogram
    hold: Histogram


def names_of_locks(domain: Domain) -> dict[int, str]:
    """Index -> name, of those that have one; ClosedError, DomainError."""
    return {} if domain.is_array else {index: name for name, index in domain._names()}


def _histogram(view: CData) -> Histogram:
    return Histogram(tuple(view.counts), int(view.sum_ns))


def checked(rc: int, domain: Domain) -> int:
    """What the core returned, if it is no error; DomainError, OSError."""
    if rc >= 0:
        return rc
    if rc == -errno.EBADF:
        raise errors.DomainError(
            f"{domain.describe()}: this process has closed the descriptor of its segment; "
            "look at it from another process"
        )
    raise OSError(-rc, f"{os.strerror(-rc)}: {domain.describe()}")


def domain_events(domain: Domain) -> DomainEvents:
    """The sums of the domain; ClosedError, DomainError, OSError."""
    wait = hold = EMPTY
    view = ffi.new("struct plk_tally_view *")
    with domain._guard:
        s = domain._live()
        for vcpu in range(lib.plk_vcpus_used(s)):
            checked(lib.plk_vcpu_tally_view(s, vcpu, view), domain)
            wait, hold = wait + _histogram(view.wait), hold + _histogram(view.hold)
        served = checked(lib.plk_tickets_served(s), domain)
        return DomainEvents(served, domain.stats(), wait, hold)


def lock_events(domain: Domain, indices: Iterable[int] | None = None) -> tuple[LockEvents, ...]:
    """Of these locks, or of all that have a name or of which something was counted.

    Of locks beyond the first 65,536 of a domain nothing is counted but acquisitions.  ClosedError,
    DomainError, OSError; UnknownLockError for an index that does not exist.
    """
    with domain._guard:
        domain._live()
        names = names_of_locks(domain)
        if indices is not None:
            return tuple(_lock(domain, index, names.get(index)) for index in indices)
        indices = sorted({*names, *_tallied(domain)})
        # Tickets of a guard are nothing that a user of its semaphore has taken.
        locks = (index for index in indices if not domain.cell(index).flags & lib.PLK_CELL_SYNC)
        found = (_lock(domain, index, names.get(index)) for index in locks)
        return tuple(one for one in found if one.counted or one.name is not None)


def _tallied(domain: Domain) -> Iterator[int]:
    """Indices of locks whose tallies have memory."""
    s, start, end = domain._live(), ffi.new("uint64_t *"), ffi.new("uint64_t *")
    while checked(lib.plk_lock_tallies_next(s, start, end), domain):
        yield from range(start[0], end[0])
        start[0] = end[0]


def _lock(domain: Domain, index: int, name: str | None) -> LockEvents:
    view = ffi.new("struct plk_tally_view *")
    cell = domain.cell(index)
    if index < lib.PLK_TALLIED:
        checked(lib.plk_lock_tally_view(domain._live(), index, view), domain)
    if view.generation != cell.generation:  # another lock's, that was at this place before
        view = ffi.new("struct plk_tally_view *")
    return LockEvents(
        index=index,
        name=name,
        acquisitions=max(0, cell.head - view.base),
        contended=view.waits,
        parks=view.parks,
        spurious=view.spurious,
        kicks=view.kicks,
        abandons=view.abandons,
        owner_deaths=view.owner_deaths,
        wait=_histogram(view.wait),
        hold=_histogram(view.hold),
    )
