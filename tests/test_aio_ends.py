"""How waits and holds of tasks end otherwise: cancelled, thrown away, forked, killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable

import pytest
from conftest import POLICIES
from support import puppet, tasks
from support.child import in_child
from support.loops import ON_EVERY_LOOP, enter, queued, run, until
from support.run import settings
from support.wait import PATIENCE_S

import pylocks
from pylocks import segment

pytestmark = pytest.mark.usefixtures("nothing_is_left_of_tasks")
ON_EVERY_POLICY = pytest.mark.parametrize("policy", POLICIES)


# ---------------------------------------------------------------- cancelled


@ON_EVERY_LOOP
@ON_EVERY_POLICY
@pytest.mark.parametrize("which", [0, 1, 2, 3])
def test_cancelled_before_the_turn(kind: str, policy: str, which: int) -> None:
    lock = pylocks.TicketLock(policy=policy)
    order: list[int] = []

    async def main() -> None:
        async with lock.aio:
            waiters = [await queued(lock, enter(lock, order, n)) for n in range(4)]
            waiters[which].cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiters[which]
        await asyncio.gather(*waiters, return_exceptions=True)

    run(main(), kind)
    assert order == [n for n in range(4) if n != which]
    assert not lock.locked() and lock.waiters == 0


@ON_EVERY_LOOP
@ON_EVERY_POLICY
def test_cancelled_when_the_turn_has_come_and_the_task_not_yet_run(kind: str, policy: str) -> None:
    """It is inside then, and passes the lock on."""
    lock = pylocks.TicketLock(policy=policy)
    order: list[int] = []

    async def main() -> None:
        async with lock.aio:
            waiters = [await queued(lock, enter(lock, order, n)) for n in range(3)]
        assert lock.locked()  # by the first of them, already
        waiters[0].cancel()
        await asyncio.gather(*waiters, return_exceptions=True)
        assert waiters[0].cancelled()

    run(main(), kind)
    assert order == [1, 2] and not lock.locked()


@ON_EVERY_LOOP
@ON_EVERY_POLICY
def test_cancelled_just_as_another_process_releases(
    kind: str, policy: str, waiting: Callable[[pylocks.TicketLock], puppet.Puppet]
) -> None:
    lock = pylocks.TicketLock(policy=policy)
    other = waiting(lock)

    async def main() -> None:
        for turn in range(30):
            other.call(tasks.acquire)
            first = await queued(lock, enter(lock))
            second = await queued(lock, enter(lock))
            other.start(tasks.release)
            for _ in range(turn % 6):
                await asyncio.sleep(0.0001 * (turn % 3))
            first.cancel()
            await asyncio.gather(first, second, return_exceptions=True)
            assert not second.cancelled()
            other.finish()

    run(main(), kind)
    assert not lock.locked() and lock.waiters == 0


def test_cancelled_inside() -> None:
    lock = pylocks.TicketLock()
    inside = asyncio.Event()

    async def hold() -> None:
        async with lock.aio:
            inside.set()
            await asyncio.sleep(PATIENCE_S)

    async def main() -> None:
        holder = asyncio.ensure_future(hold())
        await inside.wait()
        waiter = await queued(lock, enter(lock))
        holder.cancel()
        await waiter
        assert holder.cancelled()

    run(main())
    assert not lock.locked()


def test_all_leave_though_tombstones_are_scarce(
    monkeypatch: pytest.MonkeyPatch, waiting: Callable[[pylocks.TicketLock], puppet.Puppet]
) -> None:
    """Who finds no room for one is passed over when his turn comes."""
    monkeypatch.setattr(segment, "TOMBSTONES", 64)
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain)
    other = waiting(lock)
    order: list[int] = []

    async def main() -> None:
        other.call(tasks.acquire)
        waiters = [asyncio.ensure_future(enter(lock, order, n)) for n in range(200)]
        await until(lambda: lock.waiters == 200, "all queue")
        for waiter in waiters[:-1]:
            waiter.cancel()
        done = await asyncio.gather(*waiters[:-1], return_exceptions=True)
        assert all(isinstance(result, asyncio.CancelledError) for result in done)
        assert lock.waiters == 200
        other.call(tasks.release)
        await waiters[-1]
        await until(lambda: not lock.locked(), "all have gone")

    run(main())
    other.end()
    assert order == [199]
    domain.close()


# ------------------------------------------------------------------- deaths


def test_a_task_that_ends_inside_is_told_of() -> None:
    lock = pylocks.TicketLock()

    async def forget() -> None:
        await lock.aio.acquire()

    async def main() -> None:
        await asyncio.ensure_future(forget())
        await until(lambda: not lock.locked(), "the lock comes free")
        with pytest.warns(pylocks.OwnerDiedWarning, match="half-done") as told:
            async with lock.aio:
                assert lock.owner_died and lock.aio.owner_died
        assert [warning.filename for warning in told] == [__file__]
        with pytest.warns(pylocks.OwnerDiedWarning) as told:
            await lock.aio.acquire()
        assert [warning.filename for warning in told] == [__file__]
        lock.aio.mark_consistent()
        lock.aio.release()
        async with lock.aio:
            assert not lock.owner_died

    run(main())


def test_a_lock_that_refuses_is_repaired_by_a_task() -> None:
    lock = pylocks.TicketLock(on_owner_death="raise")

    async def forget() -> None:
        await lock.aio.acquire()

    async def main() -> None:
        await asyncio.ensure_future(forget())
        await until(lambda: not lock.locked(), "the lock comes free")
        with pytest.raises(pylocks.OwnerDiedError):
            await lock.aio.acquire()
        assert not lock.locked()
        with pytest.raises(ZeroDivisionError):
            async with lock.aio.repair():
                assert 1 / 0
        with pytest.raises(pylocks.OwnerDiedError):
            async with lock.aio:
                raise AssertionError("entered")
        async with lock.aio.repair(timeout=PATIENCE_S):
            assert lock.owner_died
        async with lock.aio:
            assert not lock.owner_died

    run(main())


VICTIM = """
import asyncio, sys, pylocks

async def wait(lock):
    async with lock.aio:
        pass

async def main():
    domain = pylocks.Domain(sys.argv[1])
    held = pylocks.TicketLock("held", domain=domain)
    wanted = pylocks.TicketLock("wanted", domain=domain)
    async with held.aio:
        waiters = [asyncio.ensure_future(wait(lock)) for _ in range(20) for lock in (held, wanted)]
        await asyncio.sleep(0)
        print("ready", flush=True)
        await asyncio.gather(*waiters)

asyncio.run(main())
"""


@ON_EVERY_POLICY
def test_a_killed_process_takes_its_tasks_with_it(policy: str, name: str) -> None:
    with pylocks.Domain(name) as domain:
        held = pylocks.TicketLock("held", domain=domain, policy=policy)
        wanted = pylocks.TicketLock("wanted", domain=domain, policy=policy)
        process = subprocess.Popen(
            [sys.executable, "-c", VICTIM, name], env=settings(), stdout=subprocess.PIPE, text=True
        )
        heirs: list[str] = []

        async def inherit() -> None:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                async with held.aio:
                    heirs.append(",".join(str(warning.category.__name__) for warning in told))
                    held.aio.mark_consistent()

        async def main() -> None:
            async with wanted.aio:
                await until(lambda: held.waiters >= 20 and wanted.waiters >= 20, "its tasks queue")
                before = held.waiters
                waiter = asyncio.ensure_future(inherit())
                await until(lambda: held.waiters > before, "we queue behind them")
                process.kill()
                process.wait()
                await waiter
                last = asyncio.ensure_future(enter(wanted))
                await asyncio.sleep(0)
            await last

        try:
            run(main())
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
        assert heirs == ["OwnerDiedWarning"]
        assert not held.locked() and not wanted.locked()


@ON_EVERY_LOOP
def test_fork_inside_and_among_waiters(kind: str) -> None:
    lock = pylocks.TicketLock()

    def look() -> tuple[bool, str, bool]:
        try:
            lock.aio.release()
        except pylocks.NotOwnerError as error:
            said = str(error)
        asyncio._set_running_loop(None)

        async def fresh() -> bool:
            other = pylocks.TicketLock()
            async with other.aio:
                assert not await lock.aio.acquire(timeout=0.01)
            return True

        return lock.locked(), said, run(fresh())

    async def main() -> None:
        async with lock.aio:
            waiter = await queued(lock, enter(lock))
            locked, said, worked = in_child(look)
            assert locked and worked and f"process {os.getpid()}" in said
        await waiter

    run(main(), kind)
    assert not lock.locked()


# ---------------------------------------------------------------- deadlocks


@ON_EVERY_POLICY
def test_tasks_that_wait_for_each_other_are_told(policy: str) -> None:
    domain = pylocks.Domain(detect_deadlocks=True)
    locks = [pylocks.TicketLock(domain=domain, policy=policy) for _ in range(3)]
    told: list[pylocks.DeadlockError] = []

    async def work(number: int, all_hold: asyncio.Event) -> None:
        async with locks[number].aio:
            if all(lock.locked() for lock in locks):
                all_hold.set()
            await all_hold.wait()
            try:
                async with locks[(number + 1) % 3].aio:
                    pass
            except pylocks.DeadlockError as error:
                told.append(error)

    async def main() -> None:
        all_hold = asyncio.Event()
        await asyncio.gather(*(work(number, all_hold) for number in range(3)))

    run(main())
    (error,) = told
    assert error.cycle is not None and len(error.cycle.members) == 3
    assert {member.pid for member in error.cycle.members} == {os.getpid()}
    domain.close()


def test_ctrl_c_ends_a_loop_that_waits() -> None:
    code = """
import asyncio, os, signal, threading, pylocks
lock = pylocks.TicketLock()
lock.acquire()
async def main():
    asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGINT)
    async with lock.aio:
        print("entered")
try:
    asyncio.run(main())
except KeyboardInterrupt:
    print("interrupted", lock.waiters)
lock.release()
print(lock.locked())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=settings(), capture_output=True, text=True, timeout=2 * PATIENCE_S,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["interrupted", "1", "False"]
