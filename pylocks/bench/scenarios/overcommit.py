"""More processes than CPUs: whoever holds the lock, or is next in line, may not be running."""

from __future__ import annotations

from .interface import PEERS, Scenario, grid

SCENARIO = Scenario(
    "overcommit",
    "8, 16, 64 and 256 processes, at short, middle and long critical sections",
    grid((8, 16, 64, 256), rare=(16, 256)),
    ("pylocks", "pylocks:native", "pylocks:yield", "pylocks:futex", "pylocks:bounded", *PEERS, "empty"),
    reference="ticket_yield",
)
