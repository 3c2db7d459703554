"""The primitives, as multiprocessing's are called, answer and fail.

What differs is more: any process may have them at any time (they can be pickled, not only on a child's
start), and the death of a process that has one keeps nobody up.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from multiprocessing import process
from typing import Any

import pylocks
from pylocks import errors
from pylocks.mutex import Mutex, RMutex
from pylocks.semaphore import MOST as SEM_VALUE_MAX

__all__ = [
    "SEM_VALUE_MAX",
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Event",
    "Lock",
    "RLock",
    "Semaphore",
]

LONGEST_S = 1e9
"""As good as for ever."""


def _seconds(timeout: float) -> float:
    """A negative timeout is none, as in multiprocessing."""
    return min(max(timeout, 0.0), LONGEST_S)


class _SemLock:
    """What the standard library's queues and some of its users ask of the semaphore inside."""

    __slots__ = ()

    @property
    def _semlock(self: Any) -> Any:
        return self


class Lock(_SemLock, Mutex):
    """multiprocessing.Lock: any thread of any process may release it; if its holder dies, it is free.

    The next to take it is told by a pylocks.OwnerDiedWarning.
    """

    def __new__(cls, *, ctx: Any = None) -> Lock:
        """As ctx.Lock(); any pylocks.DomainError."""
        return super().__new__(cls)  # type: ignore[return-value]

    acquire = Mutex._acquire_block  # type: ignore[assignment]

    def _is_mine(self) -> bool:
        owner = self.owner
        return owner is not None and owner.tid == threading.get_native_id()

    def _count(self) -> int:
        return int(self._is_mine())

    def _get_value(self) -> int:
        return int(not self.locked())

    def _is_zero(self) -> bool:
        return self.locked()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(owner={_named(self.owner)})>"


class QuietLock(Lock):
    """For what puts itself in order after a holder's death."""

    mend: Callable[[], None] | None = None
    """Called by whoever takes the lock of a dead thread; stays behind where the lock is pickled."""

    def _hear_of_death(self) -> None:
        if self.mend is not None:
            self.mend()


def _named(owner: pylocks.Owner | None) -> str:
    """Who holds a lock: our own threads by the names that multiprocessing gives them."""
    if owner is None:
        return "None"
    if owner.tid != threading.get_native_id():
        return f"thread {owner.tid} of process {owner.pid}"
    thread = threading.current_thread().name
    name = process.current_process().name
    return name if thread == "MainThread" else f"{name}|{thread}"


class NotHeldError(errors.NotOwnerError, AssertionError):
    """What multiprocessing raises where a lock is not held by who must hold it."""


class RLock(_SemLock, RMutex):
    """multiprocessing.RLock: its holder may take it again; if that dies, it is free.

    The next to take it is told by a pylocks.OwnerDiedWarning.
    """

    _not_owner = NotHeldError

    def __new__(cls, *, ctx: Any = None) -> RLock:
        """As ctx.RLock(); any pylocks.DomainError."""
        return super().__new__(cls)  # type: ignore[return-value]

    acquire = RMutex._acquire_block  # type: ignore[assignment]

    def _is_mine(self) -> bool:
        return self.depth > 0

    def _count(self) -> int:
        return self.depth

    def __repr__(self) -> str:
        owner = self.owner
        count = self.depth or (0 if owner is None else "nonzero")
        return f"<{type(self).__name__}({_named(owner)}, {count})>"


class Semaphore(_SemLock, pylocks.Semaphore):
    """multiprocessing.Semaphore: so many permits, which anybody may give."""

    def __new__(cls, value: int = 1, *, ctx: Any = None) -> Semaphore:
        """As ctx.Semaphore(); ValueError; any pylocks.DomainError."""
        return super().__new__(cls, value)  # type: ignore[return-value]

    acquire = pylocks.Semaphore._acquire_block  # type: ignore[assignment]

    def get_value(self) -> int:
        """How many permits there are now."""
        return self.value

    _get_value = get_value

    def _is_zero(self) -> bool:
        return self.value == 0

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={self.value})>"


class BoundedSemaphore(Semaphore):
    """multiprocessing.BoundedSemaphore: ValueError if it had more permits than it began with."""

    _FREE = "BoundedSemaphore"

    def __new__(cls, value: int = 1, *, ctx: Any = None) -> BoundedSemaphore:
        """As ctx.BoundedSemaphore(); ValueError; any pylocks.DomainError."""
        made: BoundedSemaphore = super().__new__(cls, value)  # type: ignore[assignment]
        made.maxvalue = value
        return made

    maxvalue: int

    def __reduce__(self) -> Any:
        return *super().__reduce__(), {"maxvalue": self.maxvalue}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}(value={self.value}, maxvalue={self.maxvalue})>"


class Event(pylocks.Event):
    """multiprocessing.Event."""

    def __new__(cls, *, ctx: Any = None) -> Event:
        """As ctx.Event(); any pylocks.DomainError."""
        return super().__new__(cls)  # type: ignore[return-value]

    def wait(self, timeout: float | None = None) -> bool:
        """True once it is set; False when `timeout` seconds have passed."""
        return super().wait(timeout if timeout is None else _seconds(timeout))

    def __repr__(self) -> str:
        return f"<{type(self).__qualname__} at {id(self):#x} {'set' if self.is_set() else 'unset'}>"


class Condition(pylocks.Condition):
    """multiprocessing.Condition over a Lock, an RLock, or an RLock of its own."""

    def __new__(cls, lock: Any = None, *, ctx: Any = None) -> Condition:
        """As ctx.Condition(); TypeError for the locks of others; any pylocks.DomainError."""
        return super().__new__(cls, lock or RLock(ctx=ctx))  # type: ignore[return-value]

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """The lock's."""
        return bool(self.lock.acquire(block, timeout))

    def wait(self, timeout: float | None = None) -> bool:
        """True when notified; False when `timeout` seconds have passed; AssertionError without the lock."""
        return bool(self._having_it(super().wait, timeout if timeout is None else _seconds(timeout)))

    def notify(self, n: int = 1) -> None:
        """Wake `n` of those who wait; AssertionError without the lock."""
        self._having_it(super().notify, n)

    def notify_all(self) -> None:
        """Wake all who wait; AssertionError without the lock."""
        self._having_it(super().notify_all)

    def _having_it(self, method: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return method(*arguments)
        except RuntimeError as error:
            if self.lock._is_mine():
                raise  # of a signal handler
            raise NotHeldError(str(error)) from None

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self.lock!r}, {self.waiters})>"


class Barrier(pylocks.Barrier):
    """multiprocessing.Barrier."""

    def __new__(
        cls,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        ctx: Any = None,
    ) -> Barrier:
        """As ctx.Barrier(); ValueError, TypeError; any pylocks.DomainError."""
        return super().__new__(cls, parties, action, timeout)  # type: ignore[return-value]
