"""Threads that sleep for those who are first in their lines: one for up to a hundred and more.

A lookout sleeps in futex_waitv (Linux 5.16) on the words of its lines' event channels, and on one word of its
own by which it is told of new ones.  A line stays with its lookout until it is empty; a lookout
without lines ends after a moment.

Where the kernel lacks futex_waitv, and in native domains, where nobody is kicked, it looks at its
lines every few milliseconds instead.
"""

from __future__ import annotations

import os
import threading

from pylocks._core import ffi, lib
from pylocks.aio import lines, seats

__all__ = ["Lookout", "adopt", "next_poll", "waits_any"]

POLL_NS = 2_000_000
LONGEST_NS = 50_000_000
"""A line that need not be armed does not wake its lookout when it comes: it is seen by then."""
QUIET_ROUNDS = 20
MANY = int(lib.PLK_FUTEX_MANY) - 1
ANY_BIT = 0xFFFFFFFF

_lookouts: list[Lookout] = []
_works: bool | None = None


def waits_any() -> bool:
    """This kernel can sleep on several words."""
    global _works
    if _works is None:
        _works = bool(lib.plk_futex_waits_any())
    return _works


def next_poll() -> int:
    """When to look at a line again for which nobody can sleep; CLOCK_MONOTONIC, ns."""
    return int(lib.plk_now()) + POLL_NS


class Lookout(threading.Thread):
    """One such thread.  Everything but its sleep with seats.guard held."""

    def __init__(self) -> None:
        super().__init__(name="pylocks lookout", daemon=True)
        self.lines: set[lines.Line] = set()
        self._bell = ffi.new("uint32_t *")
        self._words = ffi.new("uint64_t[]", MANY + 1)
        self._values = ffi.new("uint32_t[]", MANY + 1)
        self._until = 0

    def ring(self) -> None:
        """Look at the lines now."""
        if threading.get_ident() != self.ident:
            lib.plk_futex_poke(self._bell)

    def tell_of(self, line: lines.Line) -> None:
        """It has just been armed, or is to be looked at by line.until."""
        if line.armed is not None or (line.polled and line.until < self._until):
            self.ring()

    def drop(self, line: lines.Line) -> None:
        """It is empty."""
        self.lines.discard(line)
        line.lookout = None

    def run(self) -> None:
        quiet = 0
        while True:
            with seats.guard:
                if not self.lines:
                    quiet += 1
                    if quiet > QUIET_ROUNDS:
                        _lookouts.remove(self)
                        return
                else:
                    quiet = 0
                count = self._prepare()
            if count > 1:
                lib.plk_futex_wait_any(self._words, self._values, count, self._until)
            else:
                lib.plk_futex_wait(self._bell, self._values[0], ANY_BIT, self._until)
            with seats.guard:
                self._look()

    def _prepare(self) -> int:
        self._words[0], self._values[0] = int(ffi.cast("uint64_t", self._bell)), self._bell[0]
        self._until = int(lib.plk_now()) + LONGEST_NS
        count = 1
        for line in self.lines:
            self._until = min(self._until, line.until)
            if line.armed is not None:
                self._words[count], self._values[count] = line.word, line.seq
                count += 1
        return count

    def _look(self) -> None:
        now = int(lib.plk_now())
        for line in list(self.lines):
            if now >= line.until or (
                line.armed is not None and ffi.cast("uint32_t *", line.word)[0] != line.seq
            ):
                line.look()


def adopt(line: lines.Line) -> None:
    """See to it that somebody looks at the line by line.until, or when its word changes."""
    lookout = line.lookout
    if lookout is None:
        lookout = next((each for each in _lookouts if len(each.lines) < MANY), None)
        if lookout is None:
            lookout = Lookout()
            lookout.start()
            _lookouts.append(lookout)
        line.lookout = lookout
        lookout.lines.add(line)
    lookout.tell_of(line)


def _after_fork() -> None:
    """They are the parent's threads."""
    _lookouts.clear()


os.register_at_fork(after_in_child=_after_fork)
