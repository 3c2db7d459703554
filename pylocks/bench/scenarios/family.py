"""Conditions, events, semaphores and barriers, beside the standard library's."""

from __future__ import annotations

from .interface import Cell, Scenario

SCENARIO = Scenario(
    "family",
    "conditions, events and semaphores between 2 and 8 processes, and a barrier of 8",
    (
        *(Cell(f"{n}:{game}", n, 0, 0, game) for game in ("notify", "event", "semaphore") for n in (2, 8)),
        Cell("8:barrier", 8, 0, 0, "barrier"),
    ),
    ("family", "multiprocessing"),
    reference="multiprocessing",
    rate="a second",
    module="families",
)
