"""lock.aio: what tasks use a lock by."""

from __future__ import annotations

from asyncio import current_task
from collections.abc import Coroutine
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pylocks import errors
from pylocks._lock import Seat
from pylocks.aio import lines, seats
from pylocks.aio.lines import holders
from pylocks.aio.seats import tasks

if TYPE_CHECKING:
    from pylocks.locks import TicketLock

__all__ = ["Aio", "AioWithin"]

ENTERED, UNUSABLE = -1, -3
"""Of Seat.take."""


def _current() -> seats.Task | None:
    try:
        task = current_task()
    except RuntimeError:  # there is no loop here
        return None
    if task is None:
        return None
    known = tasks.get(id(task))
    return known if known is not None and known.ref() is task else seats.begin(task)


class Aio:
    """A TicketLock for the tasks of event loops: `async with lock.aio:`.

    One queue with the threads and tasks of all processes: first come, first served, by the time at which
    the acquisition is awaited.  The lock belongs to the task that calls acquire(), also where another one
    awaits that for it (asyncio.wait_for); only that task can release it.  A task may hold several
    locks, and none twice: AlreadyOwnerError.

    A task that is cancelled while it waits leaves the queue.  One that ends while it holds a lock is
    to the next what a thread is that died: OwnerDiedWarning, or OwnerDiedError where on_owner_death is
    "raise".  Otherwise raises what TicketLock.acquire does.
    """

    __slots__ = ("_inside", "_key", "_lock")

    _lock: TicketLock
    _inside: set[seats.Task]
    """Who has entered a block by this object, and not left it."""

    def __init__(self, lock: TicketLock) -> None:
        self._lock = lock
        self._key: lines.Key = (lock.domain, lock.index)
        self._inside = set()

    def acquire(self, timeout: float | None = None) -> Coroutine[Any, Any, bool]:
        """Await it: True, and the lock is this task's; or False, once `timeout` seconds have passed.

        timeout=0: without waiting.  None: for as long as it takes.
        """
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"timeout is None or seconds >= 0, not {timeout!r}")
        return self._acquire(_current(), timeout)

    def release(self) -> None:
        """Give the lock to the next in line; NotOwnerError if this task does not hold it."""
        self._release(_current())

    def within(self, seconds: float) -> AioWithin:
        """`async with lock.aio.within(0.5):` raises TimeoutError rather than enter without the lock."""
        if not seconds >= 0:
            raise ValueError(f"within() needs seconds >= 0, not {seconds!r}")
        return AioWithin(self, seconds)

    def repair(self, timeout: float | None = None) -> AioWithin:
        """`async with lock.aio.repair():` as TicketLock.repair()."""
        if timeout is not None and not timeout >= 0:
            raise ValueError(f"the timeout of repair() is None or seconds >= 0, not {timeout!r}")
        return AioWithin(self, timeout, repairs=True)

    def mark_consistent(self) -> None:
        """As TicketLock.mark_consistent, by the task that holds the lock; NotOwnerError."""
        seat, task = holders.get(self._key), _current()
        if seat is None or task is None or seat.task is not task:
            raise lines.refuse(self._lock, self._key, task)
        seat.mark_consistent(self._lock)

    @property
    def owner_died(self) -> bool:
        """As TicketLock.owner_died."""
        return self._lock.owner_died

    def held(self) -> bool:
        """This task holds it now."""
        seat, task = holders.get(self._key), _current()
        return seat is not None and seat.task is task

    async def __aenter__(self) -> bool:
        task, key, ticket = _current(), self._key, UNUSABLE
        seat = None if task is None or key in holders else task.seats.get(id(key[0]))
        if seat is not None and task is not None:
            ticket = seat.take(self._lock)
            if ticket == ENTERED:
                holders[key] = seat
                self._inside.add(task)
                task.blocks.add(key)
                return True
        entered = await self._acquire(task, None, False, 4, seat, ticket)
        self._began()
        return entered

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit(kind)

    def _began(self) -> None:
        task = _current()
        assert task is not None
        self._inside.add(task)
        task.blocks.add(self._key)

    def _exit(self, kind: type[BaseException] | None) -> None:
        task = _current()
        if kind is GeneratorExit:
            # A coroutine that is thrown away is closed by whoever collects it, amid another task, too.  Its
            # lock may have been taken from it before (its task or thread has ended, or this is a forked
            # child), and be another's by now; who is in _inside and does not hold it is such a one.
            seat = holders.get(self._key)
            holder = None if seat is None else seat.task
            task = next((one for one in self._inside if one is not holder), holder)
            if task is None or task is not holder or task not in self._inside:
                self._inside.discard(task)
                return
        if task is not None:
            self._inside.discard(task)
            task.blocks.discard(self._key)
        self._release(task)

    def _release(self, task: seats.Task | None) -> None:
        seat = holders.get(self._key)
        if seat is None or seat.task is not task:
            raise lines.refuse(self._lock, self._key, task)
        lines.release(self._key, self._lock, seat)

    async def _acquire(
        self,
        task: seats.Task | None,
        timeout: float | None,
        ignore: bool = False,
        level: int = 3,
        seat: Seat | None = None,
        ticket: int = UNUSABLE,
    ) -> bool:
        """ignore: a death inside.  level: frames from errors.owner_died to the user's.

        seat, ticket: what Seat.take has come to already.
        """
        lock, key = self._lock, self._key
        if ticket == UNUSABLE:
            seat = await self._seat(task, timeout)
            if seat is None:
                return False
            ticket = seat.take(lock) if timeout != 0 else seat.take_free(lock)
        assert seat is not None
        if ticket < 0:
            holders[key] = seat
        elif timeout == 0:
            seats.give_back(seat)
            return False
        elif not await self._wait(seat, ticket, timeout):
            return False
        if lock.owner_died and not ignore:
            try:
                errors.owner_died(lock.domain, key[1], lock.on_owner_death == "raise", level)
            except BaseException:
                lines.release(key, lock, seat)
                raise
        return True

    async def _seat(self, task: seats.Task | None, timeout: float | None) -> Seat | None:
        """To take the lock with; None: there was none for so long."""
        lock, key = self._lock, self._key
        if task is None:
            task = _current()
            if task is None:
                raise RuntimeError("lock.aio is for the tasks of an event loop, and this is none")
        holder = holders.get(key)
        if holder is not None and holder.task is task:
            raise self._again(task)
        seat = task.seats.get(id(key[0]))
        if seat is not None and seat.usable:
            return seat
        if seat is not None and lines.waits(key, task):
            raise self._again(task)
        return await seats.claim(task, lock, timeout)

    def _again(self, task: seats.Task) -> errors.AlreadyOwnerError:
        lock = self._lock
        return errors.AlreadyOwnerError(
            f"lock {lock.domain.describe_lock(self._key[1])} of {lock.domain.describe()} is already held or "
            f"waited for by task {task.name()!r}, which would wait for itself. A TicketLock is not recursive."
        )

    async def _wait(self, seat: Seat, ticket: int, timeout: float | None) -> bool:
        waiter = lines.Waiter(self._lock, self._key, seat, ticket)
        timer = None
        try:
            waiter.join()
            if waiter.state == lines.WAITING:
                if timeout is not None:
                    timer = waiter.loop.call_later(timeout, waiter.wake)
                await waiter.future
        except BaseException:
            waiter.quit()
            raise
        finally:
            if timer is not None:
                timer.cancel()
        if waiter.state == lines.ENTERED:
            return True
        if waiter.state == lines.DEADLOCKED:
            try:
                seat.deadlock(self._lock)
            finally:
                seats.give_back(seat)
        waiter.quit()
        return False


class AioWithin:
    """One entry into lock.aio on other terms: with a time limit, or to repair."""

    __slots__ = ("_aio", "_repairs", "_seconds")

    def __init__(self, aio: Aio, seconds: float | None, repairs: bool = False) -> None:
        self._aio, self._seconds, self._repairs = aio, seconds, repairs

    async def __aenter__(self) -> TicketLock:
        aio = self._aio
        if not await aio._acquire(_current(), self._seconds, self._repairs, level=4):
            raise TimeoutError(f"{aio._lock!r} was not acquired within {self._seconds} s")
        aio._began()
        return aio._lock

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._repairs and kind is None and self._aio.held():
            self._aio.mark_consistent()
        self._aio._exit(kind)
