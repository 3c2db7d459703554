"""Each process has a second thread that never rests: who is granted the lock may not have the GIL."""

from __future__ import annotations

from .interface import Cell, Scenario

SCENARIO = Scenario(
    "convoy",
    "2 and 8 processes with a busy sibling thread each, and 20 us under the lock",
    (Cell("2:20us", 2, 20_000, 2_000, "convoy"), Cell("8:20us", 8, 20_000, 2_000, "convoy")),
    ("TicketLock", "TicketLock:bounded", "multiprocessing.Lock", "posix_ipc.Semaphore", "flock"),
    reference="multiprocessing.Lock",
)
