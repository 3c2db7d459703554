"""lock.aio: one queue of tasks, threads and processes."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import POLICIES
from support import puppet
from support.loops import ON_EVERY_LOOP, queued, run, until
from support.run import python
from support.wait import PATIENCE_S

import pylocks
from pylocks import aio

pytestmark = pytest.mark.usefixtures("nothing_is_left_of_tasks")
ON_EVERY_POLICY = pytest.mark.parametrize("policy", POLICIES)


# ---------------------------------------------------------------- exclusion


@ON_EVERY_LOOP
@ON_EVERY_POLICY
def test_tasks_exclude_each_other(kind: str, policy: str) -> None:
    lock = pylocks.TicketLock(policy=policy)
    count = inside = 0

    async def work() -> None:
        nonlocal count, inside
        for _ in range(10):
            async with lock.aio:
                inside += 1
                assert inside == 1 and lock.locked()
                seen = count
                await asyncio.sleep(0)
                count = seen + 1
                inside -= 1

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(20)))

    run(main(), kind)
    assert count == 200 and not lock.locked() and lock.waiters == 0


def laps(lock: pylocks.TicketLock, path: str, times: int) -> int:
    """So many steps of the count in the file, each under the lock, by a task that gives way inside."""

    async def work() -> None:
        for _ in range(times):
            async with lock.aio:
                seen = int(Path(path).read_text())
                await asyncio.sleep(0)
                Path(path).write_text(str(seen + 1))

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(3)))

    run(main())
    return 3 * times


def sync_laps(lock: pylocks.TicketLock, path: str, times: int) -> int:
    """The same by a thread."""
    for _ in range(times):
        with lock:
            Path(path).write_text(str(int(Path(path).read_text()) + 1))
    return times


@ON_EVERY_POLICY
def test_tasks_and_threads_of_several_processes_exclude_each_other(
    policy: str, tmp_path: Path, waiting: Callable[[pylocks.TicketLock], puppet.Puppet]
) -> None:
    lock = pylocks.TicketLock(policy=policy)
    path = tmp_path / "count"
    path.write_text("0")
    others = [waiting(lock) for _ in range(3)]
    for other, task in zip(others, (laps, sync_laps, laps), strict=True):
        other.start(task, str(path), 30)
    done = laps(lock, str(path), 30)
    done += sum(other.finish() for other in others)
    assert int(path.read_text()) == done
    assert not lock.locked()


def test_elements_of_an_array() -> None:
    locks = pylocks.LockArray(8)

    async def main() -> None:
        async with locks[3].aio, locks[-1].aio:
            assert locks[3].locked() and locks[7].locked() and not locks[2].locked()
        assert not locks[3].locked()

    run(main())
    locks.close()


# ------------------------------------------------------------------- order


def ticket_of_one_turn(lock: pylocks.TicketLock) -> int:
    """Of a thread."""
    with lock:
        return lock.ticket


@ON_EVERY_LOOP
def test_first_come_first_served_with_a_thread_of_another_process_in_between(
    kind: str, waiting: Callable[[pylocks.TicketLock], puppet.Puppet]
) -> None:
    lock = pylocks.TicketLock()
    other, third = waiting(lock), waiting(lock)
    order = []

    async def enter(name: str) -> None:
        async with lock.aio:
            order.append((name, lock.ticket))

    async def queue_up(party: puppet.Puppet) -> None:
        before = lock.waiters
        party.start(ticket_of_one_turn)
        await until(lambda: lock.waiters > before, "it queues")

    async def main() -> None:
        async with lock.aio:
            first = lock.ticket
            a = await queued(lock, enter("a"))
            await queue_up(other)
            b = await queued(lock, enter("b"))
            await queue_up(third)
            c = await queued(lock, enter("c"))
        await asyncio.gather(a, b, c)
        assert order == [("a", first + 1), ("b", first + 3), ("c", first + 5)]
        assert (other.finish(), third.finish()) == (first + 2, first + 4)

    run(main(), kind)


def test_bounded_tasks_come_in_the_order_in_which_they_queued() -> None:
    lock = pylocks.TicketLock(policy="bounded")
    order = []

    async def enter(number: int) -> None:
        async with lock.aio:
            order.append(number)

    async def main() -> None:
        async with lock.aio:
            waiters = [await queued(lock, enter(n)) for n in range(20)]
        await asyncio.gather(*waiters)

    run(main())
    assert order == list(range(20))


# ------------------------------------------------------------- time limits


@ON_EVERY_LOOP
@ON_EVERY_POLICY
def test_time_limits(kind: str, policy: str) -> None:
    lock = pylocks.TicketLock(policy=policy)

    async def in_vain() -> None:
        assert not await lock.aio.acquire(timeout=0)
        assert not await lock.aio.acquire(timeout=0.01)
        with pytest.raises(TimeoutError, match=r"was not acquired within 0\.01 s"):
            async with lock.aio.within(0.01):
                raise AssertionError("entered without the lock")
        if sys.version_info >= (3, 11):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01), lock.aio:
                    raise AssertionError("entered without the lock")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(lock.aio.acquire(), 0.01)
        await asyncio.sleep(0)

    async def main() -> None:
        async with lock.aio:
            await asyncio.ensure_future(in_vain())
        async with lock.aio.within(PATIENCE_S) as inside:
            assert inside is lock and lock.locked()
        assert await lock.aio.acquire(timeout=0)
        lock.aio.release()
        assert await lock.aio.acquire(timeout=PATIENCE_S)
        lock.aio.release()

    run(main(), kind)
    assert not lock.locked() and lock.waiters == 0


def test_the_lock_is_of_the_task_that_asks_for_it_whoever_awaits_it() -> None:
    lock = pylocks.TicketLock()

    async def main() -> None:
        assert await asyncio.wait_for(lock.aio.acquire(), PATIENCE_S)
        assert lock.aio.held()
        lock.aio.release()
        a, b = pylocks.TicketLock(), pylocks.TicketLock()
        await asyncio.gather(a.aio.acquire(), b.aio.acquire())
        a.aio.release()
        b.aio.release()

    run(main())


@pytest.mark.parametrize("bad", [-1, float("nan")])
def test_bad_limits(bad: float) -> None:
    lock = pylocks.TicketLock()
    for ask in (lock.aio.acquire, lock.aio.within, lock.aio.repair):
        with pytest.raises(ValueError, match="seconds"):
            ask(bad)


# --------------------------------------------------------------- ownership


@ON_EVERY_LOOP
def test_a_lock_belongs_to_its_task(kind: str) -> None:
    lock = pylocks.TicketLock("orders", domain=pylocks.Domain())

    async def stranger() -> None:
        assert not lock.aio.held()
        with pytest.raises(pylocks.NotOwnerError, match=r"'orders'.*'stranger'.*held by task 'holder'"):
            lock.aio.release()
        with pytest.raises(pylocks.NotOwnerError):
            lock.aio.mark_consistent()

    async def main() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.set_name("holder")
        with pytest.raises(pylocks.NotOwnerError, match="nobody holds it"):
            lock.aio.release()
        async with lock.aio:
            other = asyncio.ensure_future(stranger())
            other.set_name("stranger")
            await other
            owner = lock.owner
            assert owner is not None and owner.alive
            assert (owner.pid, owner.tid) == (os.getpid(), threading.get_native_id())
            with pytest.raises(pylocks.NotOwnerError):
                lock.release()  # the thread is somebody else than its tasks
            with pytest.raises(pylocks.AlreadyOwnerError, match=r"'holder'.*not recursive"):
                await lock.aio.acquire()
            assert lock.aio.held()

    run(main(), kind)
    with pytest.raises(pylocks.NotOwnerError):
        lock.aio.release()
    with pytest.raises(RuntimeError, match="event loop"):
        lock.aio.acquire().send(None)
    lock.domain.close()


def test_who_waits_twice_would_wait_for_himself() -> None:
    lock = pylocks.TicketLock()

    async def main() -> None:
        with lock:
            twice = asyncio.gather(lock.aio.acquire(), lock.aio.acquire(), return_exceptions=True)
            await until(lambda: lock.waiters == 1, "one of them queues")
        first, second = await twice
        assert first is True and isinstance(second, pylocks.AlreadyOwnerError)
        lock.aio.release()

    run(main())


def test_a_domain_is_busy_while_tasks_use_it() -> None:
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain)

    async def main() -> None:
        async with lock.aio:
            with pytest.raises(pylocks.DomainBusyError):
                domain.close()
        domain.close()
        with pytest.raises(pylocks.ClosedError):
            await lock.aio.acquire()

    run(main())


def test_a_domain_goes_with_its_last_handle_though_tasks_have_used_it() -> None:
    lock = pylocks.TicketLock(domain=pylocks.Domain())
    before = len(os.listdir("/proc/self/fd"))

    async def main() -> None:
        nonlocal lock
        async with lock.aio:
            pass
        del lock
        gc.collect()
        assert len(os.listdir("/proc/self/fd")) < before + 8

    async def soon() -> None:
        await main()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(soon())
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_the_face_says_what_it_is() -> None:
    lock = pylocks.TicketLock()
    assert isinstance(lock.aio, aio.Aio) and isinstance(lock.aio.within(1), aio.AioWithin)
    assert not lock.aio.owner_died


DOCS = Path(__file__).resolve().parent.parent / "docs" / "asyncio.md"


@pytest.mark.skipif(not DOCS.exists(), reason="this reads the source tree")
def test_the_examples_of_the_documentation(tmp_path: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(examples) >= 4
    said = ""
    for number, example in enumerate(examples):
        path = tmp_path / f"example{number}.py"
        path.write_text(example)
        said += python(path).check()
    assert [line.split(" ")[0] for line in said.splitlines()] == [
        "inside", "<pylocks.TicketLock", "not", "100", "a", "put", "as",
    ]  # fmt: skip
