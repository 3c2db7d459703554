"""Readers and writers: under a lock that tells them apart, and under one that does not."""

from __future__ import annotations

from .interface import Cell, Scenario

SCENARIO = Scenario(
    "readers",
    "20 us under the lock: 8 and 64 processes that write one time in twenty; 64 that read and 2 that write",
    (
        Cell("8:mixed", 8, 20_000, 2000, "mixed"),
        Cell("64:mixed", 64, 20_000, 2000, "mixed"),
        Cell("66:apart", 66, 20_000, 2000, "apart"),
    ),
    ("RWLock", "TicketLock"),
    reference="TicketLock",
    wait="writers' wait",
    module="families",
)
