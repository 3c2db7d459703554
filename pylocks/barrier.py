"""Barrier."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pylocks import _lock
from pylocks.domain import Domain
from pylocks.sync import Shared

__all__ = ["Barrier"]

MOST = 65535


class Barrier(Shared, _lock.Barrier):
    """So many threads, of any processes, wait for each other and go on together.

    parties: how many.  action: called by the last of them before they go on; an exception of it breaks the
    barrier.  timeout: seconds of each wait() that gives none; None, for ever.  Barrier(3) is anonymous and
    Barrier(3, name="phase") the same one in every process of this user, as Semaphore's; ValueError if that
    exists with another number of parties.  Action and timeout are each handle's own.

    A barrier breaks when a wait times out or is interrupted, when abort() is called, and when a thread dies
    that waits or runs the action; all others get a threading.BrokenBarrierError, after a death a
    BarrierDeathError.
    """

    __slots__ = ("_action", "_private", "_timeout", "name")

    _action: Callable[[], object] | None
    _timeout: float | None

    def __new__(
        cls,
        parties: int,
        action: Callable[[], object] | None = None,
        timeout: float | None = None,
        *,
        name: str | None = None,
        domain: Domain | None = None,
    ) -> Barrier:
        """See the class; WrongKindError, and any DomainError."""
        if not isinstance(parties, int):
            raise TypeError(f"the parties of a barrier are an int, not {parties!r}")
        if not 1 <= parties <= MOST:
            raise ValueError(f"a barrier is for 1 to {MOST} parties, not {parties}")
        if action is not None and not callable(action):
            raise TypeError(f"the action of a barrier is called, and {action!r} can't be")
        made = cls._open("Barrier", name, domain, 0, parties)
        if made.parties != parties:
            raise ValueError(
                f"barrier {name!r} of {made.domain.describe()} is for {made.parties}, not {parties}"
            )
        made._action, made._timeout = action, timeout
        return made

    def wait(self, timeout: float | None = None) -> int:
        """Wait for all; this thread's place among them, 0 to parties - 1.

        timeout: seconds; None, that of the barrier.  Raises threading.BrokenBarrierError, what the action
        raises and what a signal handler raises.
        """
        return self._wait(self._timeout if timeout is None else timeout, self._action)

    @property
    def n_waiting(self) -> int:
        """How many wait; may be out of date as soon as it is read."""
        return 0 if self.broken else self.waiters

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_pickle, (*super().__reduce__(), self._action, self._timeout)

    def __repr__(self) -> str:
        return self._described(
            lambda: "broken" if self.broken else f"{self.waiters} of {self.parties} waiting"
        )


def _from_pickle(
    make: Callable[..., Barrier],
    arguments: tuple[Any, ...],
    action: Callable[[], object] | None,
    timeout: float | None,
) -> Barrier:
    made = make(*arguments)
    made._action, made._timeout = action, timeout
    return made
