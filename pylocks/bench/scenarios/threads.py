"""Threads of one process: they queue for the GIL as well."""

from __future__ import annotations

from .interface import Cell, Scenario

SCENARIO = Scenario(
    "threads",
    "2 and 8 threads of one process: with lock: counter += 1",
    (Cell("2:bare", 2, 0, 0, "threads"), Cell("8:bare", 8, 0, 0, "threads")),
    (
        "TicketLock",
        "TicketLock:bounded",
        "threading.Lock",
        "multiprocessing.Lock",
        "posix_ipc.Semaphore",
        "flock",
    ),
    reference="threading.Lock",
)
