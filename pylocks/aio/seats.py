"""Which task has which seat: a vCPU for each that holds a lock or waits for one.

A task takes a seat of its thread's pool for the domain when it first needs one, and keeps it as long as it
holds something, or for its life where there are enough of them.  So tasks are to a lock what threads
are: each excludes the others, has its own ticket, and may hold several locks.

A pool has a limit, because the vCPU slots are the whole domain's, and because the kernel marks no more
than 2048 of a thread's life words when it dies.  A task beyond it waits for a seat before it can queue,
in order; except one that holds something, for which others may be waiting.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from pylocks._lock import Lock, Seat
from pylocks.domain import Domain

__all__ = ["Pool", "Task", "begin", "claim", "give_back"]

LIMIT = 1024
"""Seats of a thread in a domain, at most; and no more than a quarter of its slots."""
KEPT = 32
"""While there are no more, tasks keep theirs: it saves the second acquisition a look at the pool."""


class Task:
    """What is kept of an asyncio task: its seats, by id() of the domain."""

    __slots__ = ("__weakref__", "blocks", "ended", "ref", "seats", "used")

    def __init__(self, task: asyncio.Task[Any], gone: Callable[[weakref.ref[Any]], None]) -> None:
        self.ref = weakref.ref(task, gone)
        self.seats: dict[int, Seat] = {}
        self.used = self.ended = False
        self.blocks: set[Any] = set()
        """The locks whose blocks it is in; released as those are left, also by a collected coroutine."""

    def name(self) -> str:
        """For messages."""
        task = self.ref()
        return task.get_name() if task is not None else "a task that is gone"


guard = threading.RLock()
"""Of lines, of seats that wait, and of pools."""

tasks: dict[int, Task] = {}
"""By id() of the task, while that is there."""

_ended: Callable[[Task], None]
"""What becomes of the locks of a task that ends; lines sets it."""


def on_end(action: Callable[[Task], None]) -> None:
    """Call it with each Task that has ended and still has seats, before these are given back."""
    global _ended
    _ended = action


def begin(task: asyncio.Task[Any]) -> Task:
    """Keep something of the task from now on, until it ends."""
    key = id(task)

    def gone(ref: weakref.ref[Any]) -> None:
        if key in tasks and tasks[key].ref is ref:
            end(tasks.pop(key), False)  # it was thrown away, and never done

    def done(_: object) -> None:
        if tasks.get(key) is mine:
            del tasks[key]
        end(mine, True)

    def end(mine: Task, done: bool) -> None:
        mine.ended = True
        if mine.used:  # not mine.seats: a second seat of a domain is not in there
            if done:
                mine.blocks.clear()
            _ended(mine)
            _give_back_all(mine)

    mine = tasks[key] = Task(task, gone)
    task.add_done_callback(done)
    return mine


class Pool:
    """The seats of one thread in one domain."""

    __slots__ = ("count", "idle", "key", "limit", "starving")

    def __init__(self, domain: Domain) -> None:
        self.key = id(domain)
        self.idle: list[Seat] = []
        self.count = 0
        self.limit = max(1, min(LIMIT, domain.vcpu_limit // 4))
        self.starving: deque[asyncio.Future[None]] = deque()

    def get(self, lock: Lock, urgent: bool) -> Seat | None:
        """A seat, or None: the limit is reached; urgent: regardless of that.  As Lock.acquire raises."""
        with guard:
            while self.idle:
                seat = self.idle.pop()
                if seat.live:
                    return seat
                self.count -= 1  # the domain was closed
            if self.count >= self.limit and not urgent:
                return None
            seat = Seat(lock)
            seat.pool = self
            self.count += 1
            return seat

    def put(self, seat: Seat) -> None:
        """Nobody's any more; by any thread."""
        with guard:
            seat.task = None
            if not seat.live or self.count > self.limit or (len(self.idle) >= KEPT and not self.starving):
                self.count -= 1
                seat.close()
            else:
                seat.forget()
                self.idle.append(seat)
            self.feed()

    def feed(self) -> None:
        """There may be one for the next that starves."""
        while self.starving and (self.idle or self.count < self.limit):
            turn = self.starving.popleft()
            try:
                turn.get_loop().call_soon_threadsafe(_feed, turn, self)
                return
            except RuntimeError:
                pass  # its loop is closed

    async def turn(self, first: bool, timeout: float | None) -> bool:
        """Starve; first: again.  False: for so long."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self.starving.appendleft if first else self.starving.append)(turn)
        try:
            with guard:
                self.feed()  # a lookout may have put one back since the look
            await asyncio.wait((turn,), timeout=timeout)
        finally:
            if not turn.done():
                turn.cancel()
                if turn in self.starving:
                    self.starving.remove(turn)
        return not turn.cancelled()


def _feed(turn: asyncio.Future[None], pool: Pool) -> None:
    if turn.done():
        pool.feed()  # it went away meanwhile: the next
    else:
        turn.set_result(None)


_here = threading.local()


def pool_of(domain: Domain) -> Pool:
    """This thread's."""
    try:
        pools: weakref.WeakKeyDictionary[Domain, Pool] = _here.pools
    except AttributeError:
        pools = _here.pools = weakref.WeakKeyDictionary()
    pool = pools.get(domain)
    if pool is None:
        pool = pools[domain] = Pool(domain)
    return pool


async def claim(task: Task, lock: Lock, timeout: float | None) -> Seat | None:
    """A seat of the task's that does not wait for another lock; None: there was none for so long."""
    pool = pool_of(lock.domain)
    end = None if timeout is None else time.monotonic() + timeout
    again = False
    while True:
        urgent = any(seat.held for seat in task.seats.values())
        seat = None if pool.starving and not again and not urgent else pool.get(lock, urgent)
        if seat is not None:
            break
        left = None if end is None else max(0.0, end - time.monotonic())
        try:
            if left == 0 or not await pool.turn(again, left):
                return None
        except BaseException:
            pool.feed()  # it may have been fed
            raise
        again = True
    if task.ended:
        pool.put(seat)
        raise RuntimeError("the task that called acquire() has ended")
    seat.task, seat.kept, task.used = task, False, True
    known = task.seats.get(pool.key)
    if known is None or not known.live:
        task.seats[pool.key] = seat
        seat.kept = pool.count <= KEPT and not pool.starving
    return seat


def give_back(seat: Seat) -> None:
    """It holds nothing now; a task keeps its first where there are enough."""
    if seat.kept or seat.held:
        return
    pool, task = seat.pool, seat.task
    if task.seats.get(pool.key) is seat:
        del task.seats[pool.key]
    pool.put(seat)


def _give_back_all(task: Task) -> None:
    seats = list(task.seats.values())
    task.seats.clear()
    for seat in seats:
        if not seat.held:
            seat.pool.put(seat)


def _after_fork() -> None:
    global _here, guard
    guard = threading.RLock()
    tasks.clear()  # their seats are the parent's
    _here = threading.local()


os.register_at_fork(after_in_child=_after_fork)
