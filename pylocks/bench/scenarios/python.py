"""The same from Python: `with lock: counter += 1`, and work of 20 us under the lock."""

from __future__ import annotations

from .interface import Cell, Scenario, stretch

SCENARIO = Scenario(
    "python",
    "2, 8 and 64 processes: with lock: counter += 1, and with 20 us under the lock",
    tuple(
        Cell(f"{n}:{name}", n, inside, outside, pin=n == 2, stretch=stretch(n))
        for name, inside, outside in (("bare", 0, 0), ("20us", 20_000, 2_000))
        for n in (2, 8, 64)
    ),
    (
        "TicketLock", "TicketLock:native", "TicketLock:bounded", "multiprocessing.Lock",
        "posix_ipc.Semaphore", "flock", "filelock",
    ),
    reference="multiprocessing.Lock",
)  # fmt: skip
