"""The tasks of this process that wait for a lock, in the order of their tickets: its line.

Each has a ticket of its own, so who comes next, of all processes, is settled when it queues.  Only the first
of a line can be next among those here, so only for it does anybody look; the others need neither a futex
nor a watchdog.  After every change of a line (settle):

  the first has entered, if its turn had come; else
    it is armed: published as a sleeper, slow raised, fenced, head looked at; and a lookout sleeps on its
    channel's word; or
    the lock is held by a task of this process, with the ticket just before.  Nobody but that task's
    release can bring the turn, and that settles the line; nothing need be published, and no system
    call made, where tasks of one process hand the lock to each other.

The last of these is decided with the mutex held, and the holder leaves without: it is struck off `holders`,
then releases, then looks whether there is a line.  Whoever joins a line enters it into `lines`, then
looks at `holders`.  So the joiner finds no holder, and arms; or the holder finds the line, and settles it.

Whose watchdog time has come, armed or not, is looked after by the lookout, as a sleeping thread would.

Who enters.  Whoever finds that the turn has come: the lookout, the task that releases, or the one that
leaves.  It enters on behalf of the task, at once, and tells its loop.  If the task was cancelled
meanwhile it finds that it has entered, and releases.

All of it under one mutex, seats.guard: of a line, and of seats that wait.  A seat that does not wait
belongs to its loop's thread alone, so an uncontended acquisition and release do without.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import os
from typing import TYPE_CHECKING

from pylocks import errors
from pylocks._lock import Seat
from pylocks.aio import seats
from pylocks.domain import Domain

if TYPE_CHECKING:
    from pylocks.aio.lookout import Lookout
    from pylocks.locks import TicketLock

__all__ = ["Key", "Line", "Waiter", "holders", "lines", "release"]

Key = tuple[Domain, int]

WAITING, ENTERED, LEFT, DEADLOCKED = range(4)

lines: dict[Key, Line] = {}
holders: dict[Key, Seat] = {}
"""The seats of this process's tasks that are inside."""

_arrivals = itertools.count()


class Waiter:
    """A task's place in a line."""

    __slots__ = ("future", "key", "lock", "loop", "order", "seat", "state", "unwanted")

    def __init__(self, lock: TicketLock, key: Key, seat: Seat, ticket: int) -> None:
        self.lock, self.key, self.seat = lock, key, seat
        self.order = (ticket, next(_arrivals))
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.state = WAITING
        self.unwanted = False
        """Its task is gone, and there was no room for the ticket's tombstone."""

    def __lt__(self, other: Waiter) -> bool:
        return self.order < other.order

    def join(self) -> None:
        """Begin to wait."""
        with seats.guard:
            line = lines.get(self.key)
            if line is None:
                line = lines[self.key] = Line(self.key, not self.seat.bounded)
            heapq.heappush(line.waiting, self)
            if self.lock.domain.detects_deadlocks and self.seat.search():
                line.give_up(self, DEADLOCKED)
            if line.waiting[0] is self:
                line.settle()

    def quit(self) -> None:
        """Be neither waiting nor inside; whatever has become of it."""
        with seats.guard:
            line = lines.get(self.key)
            if self.state == ENTERED:
                self.state = LEFT
                release(self.key, self.lock, self.seat)
            elif self.state == WAITING and line is not None:
                line.give_up(self, LEFT)
                if line.waiting and line.waiting[0] is self:
                    line.settle()

    def wake(self) -> None:
        """By its loop: at the deadline, or when it has entered or is to hear of a deadlock."""
        if not self.future.done():
            self.future.set_result(None)

    def tell(self) -> bool:
        """Have the loop wake it; False: that is closed."""
        try:
            if asyncio._get_running_loop() is self.loop:
                self.wake()
            else:
                self.loop.call_soon_threadsafe(self.wake)
        except RuntimeError:
            return False
        return True


class Line:
    """Those of this process who wait for one lock.  Everything with seats.guard held."""

    __slots__ = ("armed", "fifo", "key", "lookout", "polled", "seq", "until", "waiting", "word")

    def __init__(self, key: Key, fifo: bool) -> None:
        self.key, self.fifo = key, fifo
        self.waiting: list[Waiter] = []
        """A heap; those that have left stay in it until they are first."""
        self.armed: Waiter | None = None
        self.word = self.seq = self.until = 0
        self.polled = False
        """Nobody would be woken for the first, or could sleep: it is looked at every few milliseconds."""
        self.lookout: Lookout | None = None

    def settle(self) -> None:
        """See above."""
        while self.waiting:
            first = self.waiting[0]
            if self.armed is not None and (self.armed is not first or not self.fifo):
                self.disarm()  # of a bounded lock a step may change its ticket, and so its channel
            if first.state == WAITING and not first.seat.live:
                first.state = LEFT  # its thread is gone, and it with that
            if first.state != WAITING or (first.unwanted and self.give_up(first, LEFT)):
                heapq.heappop(self.waiting)
            elif first.seat.step():
                self._enter(first)
            elif self._watched(first):
                return
        self.disarm()
        lines.pop(self.key, None)
        if self.lookout is not None:
            self.lookout.drop(self)

    def _enter(self, waiter: Waiter) -> None:
        heapq.heappop(self.waiting)
        if self.armed is waiter:
            self.armed = None
        waiter.state = ENTERED
        holders[self.key] = waiter.seat
        if waiter.seat.task.ended:
            waiter.state = LEFT  # nobody could release it
            waiter.tell()
            leave(self.key, waiter.lock, waiter.seat)
        elif waiter.unwanted or not waiter.tell():
            waiter.state = LEFT
            leave(self.key, waiter.lock, waiter.seat)

    def _watched(self, first: Waiter) -> bool:
        """Somebody looks for its turn from now on; False: it has come."""
        from pylocks.aio import lookout

        if self.armed is first and self.lookout is not None:
            return True
        holder = holders.get(self.key)
        self.polled = False
        if self.fifo and holder is not None and holder.live and first.order[0] == first.lock.ticket + 1:
            self.until = first.seat.look()
        elif self.key[0].protocol == "native" or not lookout.waits_any():
            self.polled = True
            self.until = lookout.next_poll()
        else:
            sleep = first.seat.arm()
            if sleep is None:
                return False
            self.armed = first
            self.word, self.seq, self.until = sleep
        lookout.adopt(self)
        return True

    def disarm(self) -> None:
        """Nobody sleeps for it."""
        if self.armed is not None:
            waiter, self.armed = self.armed, None
            waiter.seat.disarm()

    def give_up(self, waiter: Waiter, state: int) -> bool:
        """Take it out of the queue; False: there is no room to note that, and its turn will be passed on."""
        if self.armed is waiter:
            self.disarm()
        if not waiter.seat.leave():
            waiter.unwanted = True
            return False
        waiter.state = state
        if state == LEFT:
            seats.give_back(waiter.seat)
        return True

    def look(self) -> None:
        """The word has changed, or the time has come: as a thread does that wakes."""
        self.disarm()
        if not self.waiting:
            self.settle()
            return
        first = self.waiting[0]
        if first.state == WAITING and first.seat.live:
            first.seat.look()
        for waiter in list(self.waiting):
            if waiter.state != WAITING or not waiter.seat.live:
                continue
            if waiter.loop.is_closed():
                self.give_up(waiter, LEFT)
            elif self.key[0].detects_deadlocks and waiter.seat.search() and self.give_up(waiter, DEADLOCKED):
                waiter.tell()
        self.settle()


def leave(key: Key, lock: TicketLock, seat: Seat, died: bool = False) -> None:
    """Give the lock to the next, of whatever process."""
    if holders.get(key) is seat:  # else another has it, since this one's thread has ended
        del holders[key]
    if not seat.live:
        return  # it has died with its thread, which is told to the next
    seat.release(lock, died)
    if not seat.kept:
        seats.give_back(seat)


def release(key: Key, lock: TicketLock, seat: Seat, died: bool = False) -> None:
    """The same, and enter on behalf of the next if that is one of ours."""
    leave(key, lock, seat, died)
    if key in lines:
        with seats.guard:
            line = lines.get(key)
            if line is not None:
                line.settle()


def _ended(task: seats.Task) -> None:
    """A task that ends inside is to those outside what a thread is that ends inside."""
    from pylocks.locks import lock_at

    for key, seat in list(holders.items()):
        if seat.task is task and key not in task.blocks:
            release(key, lock_at(*key), seat, died=True)


seats.on_end(_ended)


def waits(key: Key, task: seats.Task) -> bool:
    """The task waits for that lock already."""
    with seats.guard:
        line = lines.get(key)
        return line is not None and any(
            waiter.seat.task is task and waiter.state == WAITING for waiter in line.waiting
        )


def refuse(lock: TicketLock, key: Key, task: seats.Task | None) -> errors.NotOwnerError:
    """For a release by a task that does not hold it."""
    seat = holders.get(key)
    if seat is None:
        holder = lock.domain.describe_holder(key[1])
    else:
        holder = f"it is held by task {seat.task.name()!r} of this process"
    return errors.NotOwnerError(
        f"lock {lock.domain.describe_lock(key[1])} of {lock.domain.describe()} is not held by "
        f"{'no task at all' if task is None else f'task {task.name()!r}'}; {holder}. "
        "Only the task that acquired a lock through lock.aio can release it."
    )


def _after_fork() -> None:
    """The tasks are the parent's, and so is what they hold."""
    lines.clear()
    holders.clear()


os.register_at_fork(after_in_child=_after_fork)
