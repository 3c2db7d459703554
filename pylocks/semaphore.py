"""Semaphore and BoundedSemaphore."""

from __future__ import annotations

from typing import Any

from pylocks import _lock
from pylocks.domain import Domain
from pylocks.sync import Shared

__all__ = ["BoundedSemaphore", "Semaphore"]

MOST = 0x7FFFFFFF


def _checked(value: int) -> int:
    if not isinstance(value, int):
        raise TypeError(f"a semaphore begins with an int, not {type(value).__name__}: {value!r}")
    if not 0 <= value <= MOST:
        raise ValueError(f"a semaphore begins with 0 to {MOST} permits, not {value}")
    return value


class Semaphore(Shared, _lock.Semaphore):
    """So many permits at first, for threads of all processes.

    Semaphore() is anonymous: share it by fork, or pass it to any process of this user while the process that
    pickles it lives.  Semaphore(name="slots") is the same one in every process of this user; with `domain` it
    is looked for there.  value counts where it is made; with a name that exists, what is there stays.

    Who waits is woken in order of arrival.  A thread that comes while a permit is there may take it
    before one that is just being woken, so that the permits go round as fast as the CPUs can hand them
    on; but one that has been passed by for 0.2 ms gets the next.

    A permit is nobody's: whoever took it, any thread may release it.  So a process that is killed after
    it has acquired has taken its permit with it.  owned=True: permits belong to the thread that took
    them, no other may release them, and they come back when it dies, however it dies.
    """

    __slots__ = ("_private", "name")

    _FREE, _OWNED = "Semaphore", "owned Semaphore"

    def __new__(
        cls, value: int = 1, *, name: str | None = None, domain: Domain | None = None, owned: bool = False
    ) -> Semaphore:
        """See the class; ValueError, WrongKindError, and any DomainError."""
        return cls._open(cls._OWNED if owned else cls._FREE, name, domain, _checked(value), value)

    @property
    def owned(self) -> bool:
        """Permits come back when their thread dies."""
        return self.kind == self._OWNED

    def within(self, seconds: float) -> _lock.SyncWithin:
        """`with semaphore.within(0.5):` raises TimeoutError rather than enter without a permit."""
        return _lock.SyncWithin(self, seconds)

    def __repr__(self) -> str:
        return self._described(lambda: f"{self.value} left, {self.waiters} waiting")


class BoundedSemaphore(Semaphore):
    """A Semaphore that never has more permits than it began with: release() raises ValueError."""

    __slots__ = ()

    _FREE = "BoundedSemaphore"

    def __new__(cls, value: int = 1, **options: Any) -> BoundedSemaphore:
        """As Semaphore's."""
        made: BoundedSemaphore = super().__new__(cls, value, **options)  # type: ignore[assignment]
        return made
