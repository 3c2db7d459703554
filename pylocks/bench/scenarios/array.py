"""A lock for each row of a table, or one for all of it, or a list of some."""

from __future__ import annotations

from .interface import Cell, Scenario

SCENARIO = Scenario(
    "array",
    "2 and 8 processes take random ones of LockArray(1_000_000), of 1024 mp.Locks, and always the same lock",
    (Cell("2", 2, 0, 0, "array"), Cell("8", 8, 0, 0, "array")),
    ("LockArray", "one TicketLock", "1024 mp.Locks"),
    reference="1024 mp.Locks",
)
