"""A lock goes to and fro between two processes: the time from just before the release to the entry."""

from __future__ import annotations

from .interface import PEERS, Cell, Scenario

SCENARIO = Scenario(
    "handover",
    "two processes, pinned apart, hand a lock to each other: to one that spins, and to one that sleeps",
    (
        # The holder waits until the other does, and so much longer.
        Cell("spinning", 2, 0, 2_000, "relay", pin=True),
        Cell("parked", 2, 0, 1_000_000, "relay", pin=True),
    ),
    ("pylocks", "pylocks:native", "pylocks:yield", "pylocks:futex", "pylocks:bounded", *PEERS),
    reference="pthread_mutex",
    rate="handovers/s",
    wait="handover",
)
