"""Condition."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from pylocks import _lock
from pylocks.domain import Domain
from pylocks.locks import TicketLock, lock_at
from pylocks.mutex import Mutex, RMutex
from pylocks.sync import Shared, kind_at

__all__ = ["Condition"]

T = TypeVar("T")


class Condition(Shared, _lock.Condition):
    """Threads of all processes wait, under a lock, until another notifies them.

    lock: a TicketLock or a TicketRLock, in whose domain the condition lies; None: that of the condition
    of this name, or a recursive lock of its own, which is not handed on in order of arrival: much faster
    where every wait ends in taking it.  Condition() is anonymous and Condition(name="changed") the same one
    in every process of this user, as Semaphore's; it has one lock: ValueError for another.

    notify() wakes those who wait in order of arrival.  A waiter that dies keeps nobody up: if it had been
    notified and had not yet woken, the next is.  Whatever wait() returns or raises, the lock is held.
    """

    __slots__ = ("_private", "name")

    def __new__(
        cls,
        lock: TicketLock | Mutex | None = None,
        *,
        name: str | None = None,
        domain: Domain | None = None,
    ) -> Condition:
        """See the class; WrongKindError, and any DomainError."""
        if lock is not None and not isinstance(lock, (TicketLock, Mutex)):
            raise TypeError(f"the lock of a condition is a TicketLock or a TicketRLock, not {lock!r}")
        if lock is not None and domain not in (None, lock.domain):
            raise ValueError(f"a condition lies in the domain of its lock, {lock.domain.describe()}, alone")
        made = cls._open("Condition", name, lock.domain if lock is not None else domain)
        made._use(lock if lock is not None else made._own())
        if lock is not None:
            made._agree(lock)
        return made

    def _own(self) -> Any:
        """The lock that it has, or a new one."""
        found = self._pair(0)
        if not found:
            made = RMutex(domain=self.domain)
            found = self._pair(made.index + 1)
            if found == made.index + 1:
                if self.name is not None:
                    made._private = None  # as long as the condition may be found, so may its lock
                return made
        return _lock_at(self.domain, found - 1)

    def _agree(self, lock: Any) -> None:
        if self.name is not None:
            lock._private = None
        found = self._pair(lock.index + 1)
        if found != lock.index + 1:
            raise ValueError(
                f"condition {self.name!r} of {self.domain.describe()} has another lock, not {lock!r}"
            )

    def acquire(self, blocking: bool = True, timeout: float | None = None) -> bool:
        """The lock's."""
        return bool(self.lock.acquire(blocking, timeout))

    def release(self) -> None:
        """The lock's."""
        self.lock.release()

    def __enter__(self) -> bool:
        return bool(self.lock.__enter__())

    def __exit__(self, *args: object) -> None:
        self.lock.__exit__(*args)

    def wait_for(self, predicate: Callable[[], T], timeout: float | None = None) -> T:
        """Wait until the predicate, called with the lock held, is true; what it returned last.

        timeout: seconds, after which that is false.  Raises as wait().
        """
        self.notify(0)  # only to be told if the lock is not held
        result = predicate()
        deadline = None if timeout is None else time.monotonic() + timeout
        while not result:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
            result = predicate()
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        lock = self.lock
        return _from_pickle, (*super().__reduce__(), lock)

    def __repr__(self) -> str:
        return self._described(lambda: f"{self.waiters} waiting, {self.lock!r}")


def _lock_at(domain: Domain, index: int) -> Any:
    """The lock of a condition; any may be one."""
    kind = kind_at(domain, index)
    if kind == "RMutex":
        return RMutex._at(domain, index, kind, None)
    return Mutex._at(domain, index, kind, None) if kind == "Mutex" else lock_at(domain, index)


def _from_pickle(make: Callable[..., Condition], arguments: tuple[Any, ...], lock: Any) -> Condition:
    made = make(*arguments)
    made._use(lock)
    return made
