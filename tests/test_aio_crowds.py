"""Many tasks, many locks, and how few threads look out for them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable

import pytest
from conftest import POLICIES
from support import puppet, tasks
from support.loops import ON_EVERY_LOOP, queued, run, until
from support.run import python, settings
from support.wait import PATIENCE_S
from support.wait import until as until_sync

import pylocks
from pylocks.aio import lookout

pytestmark = pytest.mark.usefixtures("nothing_is_left_of_tasks")
ON_EVERY_POLICY = pytest.mark.parametrize("policy", POLICIES)


def threads() -> int:
    """Of this process."""
    return len(os.listdir("/proc/self/task"))


@ON_EVERY_LOOP
@ON_EVERY_POLICY
def test_a_thousand_waiting_tasks_need_one_thread_more(
    kind: str, policy: str, waiting: Callable[[pylocks.TicketLock], puppet.Puppet]
) -> None:
    lock = pylocks.TicketLock(policy=policy)
    other = waiting(lock)
    order = []

    async def enter(number: int) -> None:
        async with lock.aio:
            order.append(number)

    async def main() -> None:
        await asyncio.sleep(0)
        other.call(tasks.acquire)
        before = threads()
        waiters = [asyncio.ensure_future(enter(number)) for number in range(1000)]
        await until(lambda: lock.waiters == 1000, "all queue")
        assert threads() <= before + 1
        other.call(tasks.release)
        await asyncio.gather(*waiters)
        assert threads() <= before + 1

    run(main(), kind)
    assert order == list(range(1000))


def test_more_tasks_than_there_is_room_for_wait_their_turn_to_queue() -> None:
    domain = pylocks.Domain(vcpus=16)
    lock, second = pylocks.TicketLock(domain=domain), pylocks.TicketLock(domain=domain)
    order = []

    async def enter(number: int) -> None:
        async with lock.aio:
            order.append(number)

    async def give_up() -> bool:
        return await lock.aio.acquire(timeout=0.01)

    async def main() -> None:
        async with lock.aio:
            waiters = [asyncio.ensure_future(enter(number)) for number in range(40)]
            await until(lambda: lock.waiters == 3, "as many as may, queue")
            async with second.aio:  # who holds something is not kept waiting
                pass
            waiters[0].cancel()
            waiters[20].cancel()
            assert not await asyncio.ensure_future(give_up())
        done = await asyncio.gather(*waiters, return_exceptions=True)
        assert [number for number, result in enumerate(done) if result is not None] == [0, 20]

    run(main())
    assert order == [number for number in range(40) if number not in (0, 20)]
    domain.close()


def test_more_lines_than_one_lookout_can_watch() -> None:
    locks = pylocks.LockArray(2 * lookout.MANY - 10)

    async def enter(index: int) -> None:
        async with locks[index].aio:
            pass

    async def main() -> None:
        for index in range(len(locks)):
            locks.acquire(index)
        before = threads()
        waiters = [asyncio.ensure_future(enter(index)) for index in range(len(locks))]
        await until(lambda: all(locks[i].waiters == 1 for i in range(len(locks))), "each has its waiter")
        assert threads() <= before + 2
        for index in reversed(range(len(locks))):
            locks.release(index)
            await waiters[index]

    run(main())
    locks.close()


def test_a_lookout_without_lines_ends() -> None:
    lock = pylocks.TicketLock()

    async def main() -> None:
        lock.acquire()
        waiter = await queued(lock, lock.aio.acquire(timeout=PATIENCE_S))
        assert any(thread.name == "pylocks lookout" for thread in threading.enumerate())
        waiter.cancel()
        lock.release()

    run(main())
    until_sync(
        lambda: not any(thread.name == "pylocks lookout" for thread in threading.enumerate()), "its end"
    )


def one_after_the_other(lock: pylocks.TicketLock) -> list[int]:
    """Ten tasks, of which one goes away, behind another process."""
    order = []
    other = puppet.Puppet("fork", lock)

    async def enter(number: int) -> None:
        async with lock.aio:
            order.append(number)

    async def main() -> None:
        other.call(tasks.acquire)
        waiters = [await queued(lock, enter(number)) for number in range(10)]
        waiters[4].cancel()
        other.call(tasks.release)
        await asyncio.gather(*waiters, return_exceptions=True)

    run(main())
    other.end()
    return order


def test_where_the_kernel_has_no_sleep_for_many_lines_are_polled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookout, "_works", False)
    assert one_after_the_other(pylocks.TicketLock()) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


def test_native_domains_are_polled() -> None:
    code = (
        "import pylocks, test_aio_crowds; lock = pylocks.TicketLock(); "
        "print(lock.domain.protocol, *test_aio_crowds.one_after_the_other(lock))"
    )
    done = python("-c", code, environment=settings(PYLOCKS_PROTOCOL="native"))
    assert done.check().split() == ["native", *"012356789"]
