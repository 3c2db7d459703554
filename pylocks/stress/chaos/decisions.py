"""What happens to whom: drawn from the seed, and from nothing else.

Every participant draws from a generator of its own, named by its place: the
killer, and each process by its seat and the number of those who sat there before.
What one of them does, and how far it gets, changes nothing in what the others
draw.  Only random() is used, whose sequence Python promises not to change.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

#: How a worker asks for a lock, and how often.
HOW = (("wait", 0.5), ("timeout", 0.2), ("within", 0.15), ("poll", 0.1), ("try", 0.05))
NESTED = 0.25  #: share of turns that take a second lock inside the first
CROWDED = 0.5  #: share of locks drawn from those that many want
SHORTEST, LONGEST = 20e-6, 20e-3  #: seconds until a timeout
POLLS = 3  #: attempts of a turn that polls

KILLS, STOPS = 0.5, 0.2  #: shares of the killer's decisions; the rest interrupts
SPAWNED = 1 / 16  #: share of victims replaced by a fresh interpreter rather than a fork
SHORTEST_STOP, LONGEST_STOP = 0.001, 0.08  #: seconds
#: Processes that a kill takes with it, and how often: so that recovery is killed at work, too.
VICTIMS = ((1, 0.8), (2, 0.15), (3, 0.05))
VICTIMS_MEAN = sum(number * share for number, share in VICTIMS)
MARGIN = 1.15  #: kills planned for every one asked for


@dataclass(frozen=True)
class Turn:
    """What a worker does next."""

    how: str  #: one of HOW
    lock: int
    inner: int | None  #: a second lock, taken inside the first; None: none
    timeout: float  #: seconds; of both locks, and of each attempt to poll
    outside: float  #: work before it, as a multiple of the mean; 0.5 to 1.5


@dataclass(frozen=True)
class Decision:
    """What the killer does next."""

    pause: float  #: seconds after its last decision
    what: str  #: "kill", "stop" or "interrupt"
    seats: tuple[int, ...]
    stop: float  #: seconds until it goes on; 0 unless it is stopped
    spawn: bool  #: whether victims are replaced by fresh interpreters

    def to_json(self) -> list[object]:
        """Short, for there are thousands: [pause, what, seats, stop, spawn]."""
        return [round(self.pause, 6), self.what, list(self.seats), round(self.stop, 6), self.spawn]


class Worker:
    """The turns of one process."""

    def __init__(self, seed: int, seat: int, generation: int, processes: int, locks: int) -> None:
        self._random = random.Random(f"{seed}/seat {seat}/{generation}").random
        # Who holds a lock of the lower half may wait for one of the upper, never
        # the other way: nobody waits in a circle.
        self._tiers = (range(locks // 2), range(locks // 2, locks))
        self._all = range(locks)
        self._crowd = max(1, processes // 4)

    def turn(self) -> Turn:
        """The next one.  Always draws as often."""
        how, nested, first, second, timeout, outside = (self._random() for _ in range(6))
        crowds = (self._random(), self._random())
        lower, upper = self._tiers
        nest = nested < NESTED and len(lower) > 0
        tier = lower if nest else (lower, upper)[nested < (1 + NESTED) / 2] if lower else upper
        return Turn(
            how=_weighed(how, HOW),
            lock=self._lock(first, crowds[0], tier),
            inner=self._lock(second, crowds[1], upper) if nest else None,
            timeout=SHORTEST * (LONGEST / SHORTEST) ** timeout,
            outside=0.5 + outside,
        )

    def _lock(self, draw: float, crowd: float, tier: range) -> int:
        if crowd < CROWDED:
            return tier[int(draw * min(self._crowd, len(tier)))]
        return tier[int(draw * len(tier))]


class Killer:
    """The killer's decisions, at a pace that makes the kills in the time."""

    def __init__(self, seed: int, processes: int, seconds: float, kills: int) -> None:
        self._random = random.Random(f"{seed}/killer").random
        self._processes = processes
        self._pause = seconds * KILLS * VICTIMS_MEAN / (MARGIN * max(1, kills))

    def decision(self) -> Decision:
        """The next one.  Always draws as often."""
        pause, what, stop, spawn, many = (self._random() for _ in range(5))
        order = sorted((self._random(), seat) for seat in range(self._processes))
        kind = "kill" if what < KILLS else "stop" if what < KILLS + STOPS else "interrupt"
        number = _weighed(many, VICTIMS) if kind == "kill" else 1
        return Decision(
            pause=2 * self._pause * pause,
            what=kind,
            seats=tuple(sorted(seat for _, seat in order[:number])),
            stop=SHORTEST_STOP * (LONGEST_STOP / SHORTEST_STOP) ** stop if kind == "stop" else 0.0,
            spawn=kind == "kill" and spawn < SPAWNED,
        )


def _weighed(draw: float, shares: tuple[tuple[object, float], ...]) -> Any:
    for value, share in shares:
        draw -= share
        if draw < 0:
            return value
    return shares[-1][0]
