"""Event."""

from __future__ import annotations

from pylocks import _lock
from pylocks.domain import Domain
from pylocks.sync import Shared

__all__ = ["Event"]


class Event(Shared, _lock.Event):
    """Something that happens once, until it is cleared: threads of all processes can wait for it.

    Event() is anonymous and Event(name="ready") the same one in every process of this user, as Semaphore's.
    set() wakes all who wait at that time, in order of arrival.  A waiter that dies keeps nobody up; nor
    does one that dies while it sets: it has set it for all, or not yet for any.
    """

    __slots__ = ("_private", "name")

    def __new__(cls, *, name: str | None = None, domain: Domain | None = None) -> Event:
        """See the class; WrongKindError, and any DomainError."""
        return cls._open("Event", name, domain)

    def __repr__(self) -> str:
        return self._described(lambda: f"{'set' if self.is_set() else 'unset'}, {self.waiters} waiting")
