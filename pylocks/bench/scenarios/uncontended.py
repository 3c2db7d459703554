"""Nobody else wants the lock."""

from __future__ import annotations

from ..uncontended.measure import as_found
from .interface import Scenario

SCENARIO = Scenario(
    "uncontended",
    "a free lock: with, acquire and release, and the pair in C, under each process setting",
    (),
    (),
    reference="",
    measure=as_found,
)
