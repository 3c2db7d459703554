"""RWLock."""

from __future__ import annotations

from dataclasses import dataclass

from pylocks import _lock, errors, segment
from pylocks._core import ffi, lib
from pylocks.domain import Domain
from pylocks.sync import KINDS, Shared

__all__ = ["Insider", "RWLock"]


@dataclass(frozen=True)
class Insider:
    """Who is inside an RWLock."""

    vcpu: int
    pid: int
    tid: int
    writes: bool
    alive: bool


class RWLock(Shared, _lock.RWLock):
    """Many readers or one writer, in phases; threads of any processes.

    `with lock.read:` is to read, `with lock.write:` to write; each is acquired and released as a lock.
    RWLock() is anonymous and RWLock("prices") the same one in every process of this user, as Semaphore's.

    When a writer leaves, all readers enter that wait by then; when they have left, the next writer does, in
    order of arrival.  So a writer with k others before it waits for at most k + 1 phases of readers and k of
    writers, and a reader for one of each, however many come after them.

    Who reads may enter to read once more; a reader that wants to write, and a writer that wants to enter
    again, would wait for itself: AlreadyOwnerError.  A reader that dies has left.  After a writer died
    inside, all who enter are told by an OwnerDiedWarning, and owner_died is True, until one who writes calls
    mark_consistent().
    """

    __slots__ = ("_private", "name")

    def __new__(cls, name: str | None = None, *, domain: Domain | None = None) -> RWLock:
        """See the class; WrongKindError, and any DomainError."""
        return cls._open("RWLock", name, domain)

    @property
    def read(self) -> _lock.Side:
        """The side of the readers."""
        return _lock.Side(self, False)

    @property
    def write(self) -> _lock.Side:
        """The side of the writers."""
        return _lock.Side(self, True)

    @property
    def owners(self) -> tuple[Insider, ...]:
        """Who is inside; may be out of date when it returns."""
        rows = ffi.new("struct plk_holder[]", self.domain.vcpu_limit)
        with self.domain._guard:
            s = self.domain._live()
            count = lib.plk_sync_holders(s, self.index, KINDS["RWLock"], rows, len(rows))
        if count < 0:
            raise segment.refusal(int(count), ffi.new("struct plk_found *"), self.domain.describe())
        return tuple(
            Insider(row.vcpu, row.pid, row.tid, row.want == lib.PLK_WANT_WRITE, bool(row.alive))
            for row in (rows[i] for i in range(count))
        )

    def __repr__(self) -> str:
        return self._described(self._state)

    def _state(self) -> str:
        try:
            owners = self.owners
        except errors.DomainError as error:
            return str(error)
        writer = next((each for each in owners if each.writes), None)
        if writer is not None:
            inside = f"written by thread {writer.tid} of process {writer.pid}"
        else:
            inside = f"{len(owners)} reading" if owners else "free"
        return f"{inside}, {self.waiters} waiting"
