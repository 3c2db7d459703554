"""The holder is killed: how long until the next in line is inside."""

from __future__ import annotations

from .interface import Cell, Scenario

SCENARIO = Scenario(
    "death",
    "the holder is killed while 1 and 8 processes wait: from the kill until the next is inside",
    (Cell("1", 1, 0, 0, "death"), Cell("8", 8, 0, 0, "death")),
    (
        "pylocks:futex",
        "pylocks:served",
        "pylocks:yield",
        "pylocks:native",
        "pylocks:bounded",
        "pthread_robust",
        "flock",
        "filelock",
    ),
    reference="pthread_robust",
    rate="recoveries/s",
    wait="recovery",
)
