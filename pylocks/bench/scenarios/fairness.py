"""Everybody wants the lock again at once: who barges in has it for himself."""

from __future__ import annotations

from .interface import PEERS, Cell, Scenario

SCENARIO = Scenario(
    "fairness",
    "8 and 64 processes that do nothing but take the lock for 2 us",
    (Cell("8:greedy", 8, 2000, 0), Cell("64:greedy", 64, 2000, 0)),
    ("pylocks", "pylocks:native", "pylocks:yield", "pylocks:futex", "pylocks:bounded", *PEERS),
    reference="ticket_yield",
)
