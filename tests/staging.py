"""Processes on a stage: a domain, its raw words, and parties that use its lock "x".

The fixture that makes them is in stage_fixtures.py, a plugin of the tests that need it.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from parties import Party
from words import Words

CELL = 0
"""The lock under test: the first in its domain."""

WATCHDOG_NS = 50_000_000
"""A waiter's look after its queue, for each place in it: longer than a forced schedule takes."""


class Stage:
    """A domain and some processes that use lock "x" of it."""

    def __init__(
        self,
        extension: Path,
        parties: int,
        cpu: int | None,
        traced: bool,
        watchdog_ns: int = WATCHDOG_NS,
        **settings: str,
    ) -> None:
        self.name = f"schedule.{os.getpid()}-{secrets.token_hex(6)}"
        self.path = Path(f"/dev/shm/pylocks.{self.name}")
        self.parties: list[Party] = []
        self._traced, self._watchdog_ns = traced, watchdog_ns
        self._make = lambda: Party(extension, self.name, cpu, **settings)
        # Recovery looks at all of them, instruction by instruction.
        settings["STAGE_TOMBSTONES"] = "32" if traced else "8192"
        try:
            for _ in range(parties):
                self.parties.append(self._make())
            self.words = Words(self.path, self.parties[0].ask("stepping.layout()"))
            for party in self.parties:
                self._prepare(party)
        except BaseException:
            self.close()
            raise

    def _prepare(self, party: Party) -> None:
        party.define(f"from pylocks._core import lib; lib.plk_watchdog_set({self._watchdog_ns})")
        assert party.ask('(bind("x"), domain.lock("x").index)') == [0, CELL]
        if self._traced:
            party.trace(self.words)

    def add_party(self) -> Party:
        """One more process."""
        self.parties.append(self._make())
        self._prepare(self.parties[-1])
        return self.parties[-1]

    def close(self) -> None:
        for party in self.parties:
            party.close()
        if hasattr(self, "words"):
            self.words.close()
        self.path.unlink(missing_ok=True)


Staging = Callable[..., Stage]


PATIENCE_S = 60.0


def until(what: str, true: Callable[[], bool]) -> None:
    """Wait for something that must come about."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.001)


def queue_up(s: Stage, party: Party, expression: str, index: int = CELL) -> None:
    """Have the party evaluate what must make it queue for the lock, and wait until it has."""
    tail = s.words.read(index)["tail"]
    party.send(expression)
    until("a ticket is taken", lambda: s.words.read(index)["tail"] == tail + 1)


def idle(s: Stage) -> None:
    """Nobody holds or waits, nothing is left of any waiter, and the next unlock has no slow path."""
    cell = s.words.read(CELL)
    assert cell["head"] == cell["tail"], cell
    assert s.words.tombs_live == s.words.tombs() == 0
    assert s.parties[0].ask("stepping.try_pair(0)") == 0, "the lock is free, but can't be taken"
    assert s.words.read(CELL)["slow"] == 0, "slow is set for nobody, and stays so"
