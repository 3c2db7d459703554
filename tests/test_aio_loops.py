"""Event loops that are closed, that run in other threads, and that end with theirs."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
from conftest import POLICIES
from support import puppet, tasks
from support.loops import ON_EVERY_LOOP, enter, new_loop, queued, run, until
from support.wait import PATIENCE_S
from support.wait import until as until_sync

import pylocks
from pylocks.aio import lines

pytestmark = pytest.mark.usefixtures("nothing_is_left_of_tasks")
ON_EVERY_POLICY = pytest.mark.parametrize("policy", POLICIES)


@ON_EVERY_LOOP
def test_a_closed_loop_leaves_the_queue(
    kind: str, waiting: Callable[[pylocks.TicketLock], puppet.Puppet]
) -> None:
    lock = pylocks.TicketLock()
    other, behind = waiting(lock), waiting(lock)
    loop = new_loop(kind)

    async def begin() -> list[asyncio.Task[None]]:
        return [await queued(lock, enter(lock)) for _ in range(3)]

    other.call(tasks.acquire)
    left = loop.run_until_complete(begin())
    for task in left:
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    before = lock.waiters
    behind.start(tasks.acquire)
    until_sync(lambda: lock.waiters > before, "another process queues")
    other.call(tasks.release)
    assert behind.finish()
    behind.call(tasks.release)
    until_sync(lambda: not lock.locked(), "the lock comes free")
    until_sync(lambda: not lines.lines, "nobody waits here")


def test_a_loop_that_is_closed_inside_releases_when_it_is_collected() -> None:
    lock = pylocks.TicketLock()
    loop = new_loop()

    async def hold() -> None:
        async with lock.aio:
            await asyncio.sleep(PATIENCE_S)

    async def main() -> asyncio.Task[None]:
        task = asyncio.ensure_future(hold())
        await until(lock.locked, "it holds")
        return task

    task = loop.run_until_complete(main())
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    loop.close()
    assert lock.locked()
    del task, loop
    gc.collect()
    assert not lock.locked() and not lock.owner_died


@ON_EVERY_LOOP
@ON_EVERY_POLICY
def test_two_loops_in_two_threads(kind: str, policy: str) -> None:
    lock = pylocks.TicketLock(policy=policy)
    count = 0

    async def work() -> None:
        nonlocal count
        for _ in range(20):
            async with lock.aio:
                seen = count
                await asyncio.sleep(0)
                count = seen + 1

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(5)))

    parties = [threading.Thread(target=run, args=(main(), kind)) for _ in range(2)]
    for party in parties:
        party.start()
    for party in parties:
        party.join()
    assert count == 200 and not lock.locked()


def test_a_thread_that_ends_takes_its_tasks_with_it() -> None:
    lock, wanted = pylocks.TicketLock(), pylocks.TicketLock()
    kept: list[Any] = []

    async def begin() -> None:
        await lock.aio.acquire()
        kept.append(await queued(wanted, enter(wanted)))
        kept.append(asyncio.current_task())

    def work() -> None:
        loop = new_loop()
        kept.append(loop)
        holder = loop.create_task(hold())
        kept.append(holder)
        loop.run_until_complete(until(lambda: len(kept) == 4, "it holds and waits"))

    async def hold() -> None:
        await begin()
        await asyncio.sleep(PATIENCE_S)

    wanted.acquire()
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    async def main() -> None:
        with pytest.warns(pylocks.OwnerDiedWarning):
            async with lock.aio:
                lock.aio.mark_consistent()
        wanted.release()
        async with wanted.aio:
            pass

    run(main())
    assert not lock.locked() and not wanted.locked()
    for task in kept:
        if isinstance(task, asyncio.Task):
            task._log_destroy_pending = False  # type: ignore[attr-defined]
    kept[0].close()
    until_sync(lambda: not lines.lines, "the line of the thread that is gone")
