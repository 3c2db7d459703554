"""What lock.aio costs beside asyncio.Lock and a TicketLock of threads: `python bench/aio.py`.

Each row is the median of several runs, which take turns.  Within one loop it is the CPU time of its thread,
which others that use the machine disturb least; between processes, the time by the clock.  "handover":
what one acquisition takes where everybody waits for the lock all the time and nobody does anything inside.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pylocks

RUNS = 7


async def uncontended(lock: Any, times: int) -> float:
    """ns for an `async with` by a single task."""
    start = time.thread_time_ns()
    for _ in range(times):
        async with lock:
            pass
    return (time.thread_time_ns() - start) / times


async def empty(times: int) -> float:
    """ns for an `async with` that does nothing."""

    class Nothing:
        async def __aenter__(self) -> None: ...
        async def __aexit__(self, *args: object) -> None: ...

    return await uncontended(Nothing(), times)


async def handover(lock: Any, times: int, tasks: int) -> float:
    """ns for an acquisition by one of several tasks that wait all the time."""

    async def work() -> None:
        for _ in range(times // tasks):
            async with lock:
                await asyncio.sleep(0)  # else it never changes hands

    start = time.thread_time_ns()
    await asyncio.gather(*(work() for _ in range(tasks)))
    return (time.thread_time_ns() - start) / times


def laps(lock: Any, times: int, gate: Any, tasks: int) -> None:
    """A process's share of a contest; tasks 0: its thread's."""

    async def work(each: int) -> None:
        for _ in range(each):
            async with lock.aio:
                pass

    async def main() -> None:
        gate.wait()
        await asyncio.gather(*(work(times // tasks) for _ in range(tasks)))

    if tasks:
        asyncio.run(main())
    else:
        gate.wait()
        for _ in range(times):
            with lock:
                pass


def across(times: int, policy: str, tasks: tuple[int, int]) -> float:
    """ns for an acquisition, two processes at it."""
    lock = pylocks.TicketLock(policy=policy)
    gate = multiprocessing.Barrier(3)
    parties = [multiprocessing.Process(target=laps, args=(lock, times // 2, gate, each)) for each in tasks]
    for party in parties:
        party.start()
    gate.wait()
    start = time.perf_counter_ns()
    for party in parties:
        party.join()
    return (time.perf_counter_ns() - start) / times


def in_loop(make: Callable[[], Awaitable[float]], kind: str) -> float:
    """Its result in a new loop."""
    loop: asyncio.AbstractEventLoop
    if kind == "uvloop":
        import uvloop

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(make())
    finally:
        loop.close()


def main() -> None:
    """See above."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--times", type=int, default=20_000, help="acquisitions in a run")
    options.add_argument("--loop", default="asyncio", choices=["asyncio", "uvloop"])
    given = options.parse_args()
    times, lock, bounded = given.times, pylocks.TicketLock(), pylocks.TicketLock(policy="bounded")

    def loop(make: Callable[[], Awaitable[float]]) -> Callable[[], float]:
        return lambda: in_loop(make, given.loop)

    rows: dict[str, Callable[[], float]] = {
        "async with, nothing": loop(lambda: empty(times)),
        "async with, asyncio.Lock": loop(lambda: uncontended(asyncio.Lock(), times)),
        "async with, lock.aio": loop(lambda: uncontended(lock.aio, times)),
        "async with, lock.aio, bounded": loop(lambda: uncontended(bounded.aio, times)),
        "handover, 10 tasks, asyncio.Lock": loop(lambda: handover(asyncio.Lock(), times, 10)),
        "handover, 10 tasks, lock.aio": loop(lambda: handover(lock.aio, times, 10)),
        "handover, 10 tasks, lock.aio, bounded": loop(lambda: handover(bounded.aio, times, 10)),
        "handover, two processes, threads": lambda: across(times // 4, "fifo", (0, 0)),
        "handover, two processes, thread and tasks": lambda: across(times // 4, "fifo", (0, 5)),
        "handover, two processes, tasks": lambda: across(times // 4, "fifo", (5, 5)),
        "handover, two processes, tasks, bounded": lambda: across(times // 4, "bounded", (5, 5)),
    }
    found: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(RUNS):
        for name, row in rows.items():
            found[name].append(row())
    for name, values in found.items():
        low, middle, high = min(values), statistics.median(values), max(values)
        print(f"{name:<45} {middle:>10,.0f} ns  ({low:,.0f} to {high:,.0f})")


if __name__ == "__main__":
    main()
