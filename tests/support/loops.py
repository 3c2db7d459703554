"""Event loops for tests: asyncio's and uvloop's, and waiting inside of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from support.wait import PATIENCE_S

uvloop: Any
try:
    import uvloop

    uvloop.new_event_loop().close()  # its library keeps a pipe of the first for ever: not a test's
except ImportError:
    uvloop = None

T = TypeVar("T")

KINDS = ("asyncio", pytest.param("uvloop", marks=pytest.mark.skipif(uvloop is None, reason="no uvloop here")))

ON_EVERY_LOOP = pytest.mark.parametrize("kind", KINDS)


def new_loop(kind: str = "asyncio") -> asyncio.AbstractEventLoop:
    """A loop of that kind."""
    return asyncio.SelectorEventLoop() if kind == "asyncio" else uvloop.new_event_loop()


def run(main: Coroutine[Any, Any, T], kind: str = "asyncio") -> T:
    """asyncio.run() with such a loop, and a bound."""
    loop = new_loop(kind)
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(asyncio.wait_for(main, 2 * PATIENCE_S))
    finally:
        left = asyncio.all_tasks(loop)
        for task in left:
            task.cancel()
        loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        asyncio.set_event_loop(None)
        loop.close()


async def until(condition: Callable[[], object], what: str) -> None:
    """support.wait.until for a task, while others go on."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:g} s in vain: {what}"
        await asyncio.sleep(0.0005)


async def queued(lock: Any, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """A task that does `work`, once it has queued for the lock."""
    before = lock.waiters
    task = asyncio.ensure_future(work)
    await until(lambda: lock.waiters > before or task.done(), "a task queues")
    return task


async def enter(lock: Any, order: list[Any] | None = None, name: Any = None) -> None:
    """In and out again, as a task; its name joins `order` inside."""
    async with lock.aio:
        if order is not None:
            order.append(name)
