"""One participant: takes locks in every way there is until it is told to stop, or killed."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from types import FrameType
from typing import Any, NoReturn

from pylocks._core import lib
from pylocks.errors import NotOwnerError, OwnerDiedError, OwnerDiedWarning
from pylocks.locks import TicketLock, lock_at

from ..shared import KINDS, now
from ..worker import silence
from . import decisions
from .area import LEVELS, ChaosArea

UNWARNED, FALSE_WARNING, STILL, EARLY, ACQUIRE, RELEASE = (
    KINDS.index(kind)
    for kind in (
        "unwarned",
        "false_warning",
        "still_inconsistent",
        "early_timeout",
        "acquire_error",
        "release_error",
    )
)


#: Added to a participant's nice value: whoever kills and watches must come to it among so many.
NICE = 5


@dataclass(frozen=True)
class Part:
    """Who a participant is, in a form that an interpreter started afresh can be told."""

    parent: int  #: pid of the row process
    seed: int
    seat: int
    generation: int  #: how many sat there before
    life: int
    processes: int
    outside_loops: int  #: mean work between turns

    def argument(self, area: ChaosArea, domain: Any) -> str:
        """For main(); the area's descriptor must be inherited."""
        return json.dumps({**asdict(self), "area": area.fd, "domain": pickle.dumps(domain).hex()})


def run(area: ChaosArea, part: Part, locks: Sequence[Any]) -> NoReturn:
    """Be that participant, in a process of its own; never returns.

    Ends with status 0, or with 1 and an exception's text in the mapping.
    """
    status = 1
    try:
        if lib.plk_probe_die_with(part.parent) == 0:
            silence()
            os.nice(NICE)
            Participant(area, part, locks).fight()
            status = 0
    except BaseException as error:
        area.tell(part.seat, error)
    finally:
        os._exit(status)


def main() -> NoReturn:
    """Entry point of an interpreter started afresh: a JSON object in its first argument."""
    given = json.loads(sys.argv.pop(1))
    area = ChaosArea.existing(given.pop("area"))
    domain = pickle.loads(bytes.fromhex(given.pop("domain")))
    part = Part(**given)
    run(area, part, handles(domain, area.locks))


def handles(domain: Any, locks: int) -> list[TicketLock]:
    """All locks of the run: one warns of an owner's death, the next refuses until it is repaired."""
    room = 2 if domain.policy(0) == "bounded" else 1  # the queue lies between one such lock and the next
    return [lock_at(domain, room * n, None, ("warn", "raise")[n % 2]) for n in range(locks)]


class Participant:
    """Takes its turns.  A Ctrl-C may come at any time and ends the turn, as it would end a program's work."""

    def __init__(self, area: ChaosArea, part: Part, locks: Sequence[Any]) -> None:
        self._area, self._part, self._locks = area, part, locks
        self._control, self._life = area.control, part.life
        self._me = area.life(part.life)
        self._draw = decisions.Worker(part.seed, part.seat, part.generation, part.processes, area.locks)
        self._warned = False
        self._armed = False
        self._ended = False

    def fight(self) -> None:
        """Turn after turn until the stop word is set."""
        signal.signal(signal.SIGINT, self._interrupt)
        with self.listening():
            while self._control.stop == 0 and not self.failed:
                self.turn(self._draw.turn())

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Hear every OwnerDiedWarning."""
        with warnings.catch_warnings():
            warnings.simplefilter("always", OwnerDiedWarning)
            warnings.showwarning = self._note_warning
            yield

    def _note_warning(self, *_: object, **__: object) -> None:
        self._warned = True

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        # Once a turn: what cleans up after one is not interrupted by another.
        if self._armed:
            self._armed = False
            raise KeyboardInterrupt

    @property
    def failed(self) -> bool:
        """Whether a lock could not be acquired, and would not be at the next try."""
        return self._ended

    def turn(self, turn: decisions.Turn) -> None:
        """Take the locks of a turn; every exception that a lock should not raise is a violation."""
        self._me.turns += 1
        try:
            self._armed = True
            lib.plk_probe_work(int(self._part.outside_loops * turn.outside))
            self._take(0, turn.lock, turn, turn.inner)
            self._armed = False
        except KeyboardInterrupt:
            self._me.interrupts += 1
        except Exception as error:
            self._armed = False
            self._complain(error)
        finally:
            self._settle()

    def _take(self, level: int, index: int, turn: decisions.Turn, inner: int | None) -> None:
        """One lock, and another one inside."""
        lock = self._locks[index]
        self._begin(level, index)
        try:
            self._ask(lock, level, turn, inner)
        except OwnerDiedError:
            # Refused because a holder died; whoever comes to repair may find it done.
            self._begin(level, index)
            with lock.repair():
                self._inside(lock, level, turn, inner, repairs=True)
        lib.plk_chaos_out(self._control, self._life, level)

    def _begin(self, level: int, index: int) -> None:
        lib.plk_chaos_out(self._control, self._life, level)
        lib.plk_chaos_wait(self._control, self._life, level, index)
        self._warned = False

    def _ask(self, lock: Any, level: int, turn: decisions.Turn, inner: int | None) -> None:
        """acquire() in the way of this turn; returns without the lock."""
        if turn.how == "wait":
            with lock:
                self._inside(lock, level, turn, inner)
        elif turn.how == "within":
            self._take_within(lock, level, turn, inner)
        elif self._attempt(lock, level, turn):
            # Between these lines a Ctrl-C leaves the lock held; _settle sees to that.
            try:
                self._inside(lock, level, turn, inner)
            finally:
                lock.release()

    def _take_within(self, lock: Any, level: int, turn: decisions.Turn, inner: int | None) -> None:
        began, entered = now(), False
        try:
            with lock.within(turn.timeout):
                entered = True
                self._inside(lock, level, turn, inner)
        except TimeoutError:
            if entered:
                raise
            self._timed_out(level, began, turn.timeout)

    def _attempt(self, lock: Any, level: int, turn: decisions.Turn) -> bool:
        """acquire() with a limit; whether the lock is held now."""
        number = self._me.claims[level].lock
        if turn.how == "try":
            return bool(lock.acquire(blocking=False))
        for attempt in range(decisions.POLLS if turn.how == "poll" else 1):
            if attempt > 0:
                self._begin(level, number)  # a place in the queue given up, another one taken
            began = now()
            if lock.acquire(timeout=turn.timeout):
                return True
            self._timed_out(level, began, turn.timeout)
        return False

    def _timed_out(self, level: int, began: int, timeout: float) -> None:
        self._me.timeouts += 1
        waited = now() - began
        if waited < int(timeout * 1e9):
            self._violated(level, EARLY, waited, int(timeout * 1e9))

    def _inside(
        self, lock: Any, level: int, turn: decisions.Turn, inner: int | None, repairs: bool = False
    ) -> None:
        """The critical section."""
        try:
            told = self._enter(lock, level)
            if told != self._warned and not repairs:
                self._violated(level, UNWARNED if told else FALSE_WARNING, int(self._warned), int(told))
            if told and not repairs:
                self._mend(lock, level)
            if inner is not None:
                self._take(level + 1, inner, turn, None)
            lib.plk_chaos_work(self._control, self._life, level)
            if told and repairs:
                lib.plk_chaos_mend(self._control, self._life, level, 0)  # when the block ends
        finally:
            lib.plk_chaos_leave(self._control, self._life, level)

    def _enter(self, lock: Any, level: int) -> bool:
        """Set the mark and judge what was there; whether a death is told of."""
        told: bool = lock.owner_died
        lib.plk_chaos_enter(self._control, self._life, level, lock.ticket, told)
        return told

    def _mend(self, lock: Any, level: int) -> None:
        """What the dead holder left has been repaired: say so."""
        lib.plk_chaos_mend(self._control, self._life, level, 0)
        lock.mark_consistent()
        if lock.owner_died:
            self._violated(level, STILL, 1, 0)
        lib.plk_chaos_mend(self._control, self._life, level, 1)

    def _violated(self, level: int, kind: int, got: int, expected: int) -> None:
        lib.plk_chaos_violated(self._control, self._life, level, kind, got, expected)

    def _complain(self, error: Exception) -> None:
        """An exception that no lock should raise."""
        me = self._me
        level = max((n for n in range(LEVELS) if me.claims[n].phase != lib.PLK_CHAOS_OUTSIDE), default=0)
        acquiring = me.claims[level].phase == lib.PLK_CHAOS_WAITING
        self._violated(level, ACQUIRE if acquiring else RELEASE, 0, 0)
        self._area.tell(self._part.seat, error)
        # What is wrong with acquire now would be wrong at the next try, too.
        self._ended = acquiring

    def _settle(self) -> None:
        """After an exception: hold nothing any more."""
        for level in reversed(range(LEVELS)):
            claim = self._me.claims[level]
            if claim.phase == lib.PLK_CHAOS_OUTSIDE:
                continue
            lib.plk_chaos_leave(self._control, self._life, level)
            # Not held if it was interrupted before the grant, or after the release.
            with contextlib.suppress(NotOwnerError):
                self._locks[claim.lock].release()
            lib.plk_chaos_out(self._control, self._life, level)
