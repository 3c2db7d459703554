"""Two processes, each on a CPU of its own: nobody needs to sleep."""

from __future__ import annotations

from .interface import PEERS, Scenario, grid

SCENARIO = Scenario(
    "two",
    "two contenders, pinned apart, at short, middle and long critical sections",
    grid((2,), pin=True),
    ("pylocks", "pylocks:native", "pylocks:yield", "pylocks:futex", "pylocks:bounded", *PEERS, "empty"),
    reference="ticket_spin",
)
