"""A crowd asleep behind one lock: a release must wake the next of them, and nobody else."""

from __future__ import annotations

from .interface import Cell, Scenario

SCENARIO = Scenario(
    "parked",
    "8, 64 and 1,000 processes asleep in the queue, let through once: from release to entry of the next",
    (Cell("8", 8, 0, 0, "queue"), Cell("64", 64, 0, 0, "queue"), Cell("1000", 1000, 0, 0, "queue")),
    (
        "pylocks:futex",
        "pylocks:counted",
        "pylocks:bounded",
        "adaptive",
        "pthread_mutex",
        "pthread_pi",
        "sem_t",
    ),
    reference="pylocks:futex",
    rate="handovers/s",
    wait="handover",
)
