"""Blocks and acquisitions whose task ends before them: whoever holds the lock by then is left alone."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator

import pytest
from support.loops import ON_EVERY_LOOP, run

import pylocks


@ON_EVERY_LOOP
def test_an_abandoned_generator_releases_nobody_elses_lock(kind: str) -> None:
    lock = pylocks.TicketLock()
    inside: set[int] = set()
    most = 0

    async def generator() -> AsyncIterator[int]:
        async with lock.aio:
            yield 1
            yield 2

    async def abandons() -> None:
        async for _ in generator():
            await asyncio.sleep(0)
            break

    async def enters(name: int) -> None:
        nonlocal most
        async with lock.aio:
            inside.add(name)
            most = max(most, len(inside))
            for _ in range(20):
                await asyncio.sleep(0)
                most = max(most, len(inside))
            inside.discard(name)

    async def main() -> None:
        first = asyncio.ensure_future(abandons())
        await asyncio.sleep(0)
        await asyncio.gather(first, *(enters(name) for name in range(3)))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pylocks.OwnerDiedWarning)
        run(main(), kind)
    assert most == 1 and not lock.locked()


@ON_EVERY_LOOP
def test_an_acquisition_for_a_task_that_has_ended_takes_nothing(kind: str) -> None:
    lock = pylocks.TicketLock()

    async def main() -> bool:
        async def shielded() -> None:
            await asyncio.shield(lock.aio.acquire())

        async with lock.aio:
            waiting = asyncio.ensure_future(shielded())
            while lock.waiters < 1:
                await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        taken = await lock.aio.acquire(30)
        lock.aio.release()
        return taken

    assert run(main(), kind) is True
    assert not lock.locked()
