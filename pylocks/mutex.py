"""Mutex: what stands for multiprocessing.Lock in pylocks.multiprocessing."""

from __future__ import annotations

from pylocks import _lock, errors
from pylocks._core import lib
from pylocks.domain import Domain
from pylocks.sync import Shared
from pylocks.views import Owner

__all__ = ["Mutex"]


class Mutex(Shared, _lock.Mutex):
    """A lock that any thread of any process may release, not only the one that took it.

    A thread that takes it twice waits until another releases it.  It is the holder's all the same: if that
    thread dies or ends, the lock is free, and the next to take it is told by an OwnerDiedWarning.  Names
    as Semaphore's; waiters and newcomers, too.  A TicketLock is the better lock where nothing needs this.
    """

    __slots__ = ("_private", "name")

    def __new__(cls, *, name: str | None = None, domain: Domain | None = None) -> Mutex:
        """See the class; WrongKindError, and any DomainError."""
        return cls._open("Mutex", name, domain)

    @property
    def owner(self) -> Owner | None:
        """Who took the lock, None if nobody holds it; may be out of date when it returns.

        Its ticket is 0, as there are none.  After its death it is the owner until somebody looks for it.
        """
        holder = self.holder
        if holder is None:
            return None
        view = self.domain._vcpu(holder[0])
        if view is None:
            raise errors.CorruptDomainError(
                f"{self.domain.describe()}: {self.index} is held by vCPU {holder[0]}, which does not exist"
            )
        alive = view.generation == holder[1] and view.life == lib.PLK_LIFE_ALIVE
        return Owner(holder[0], view.pid, view.tid, 0, alive)

    def within(self, seconds: float) -> _lock.SyncWithin:
        """`with mutex.within(0.5):` raises TimeoutError rather than enter without the lock."""
        return _lock.SyncWithin(self, seconds)

    def __repr__(self) -> str:
        return self._described(self._state)

    def _state(self) -> str:
        try:
            owner = self.owner
        except errors.DomainError as error:
            return str(error)
        if owner is None:
            return "free"
        return f"held by thread {owner.tid} of process {owner.pid}, {self.waiters} waiting"
