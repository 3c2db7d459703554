"""The loops of Python's workers: everything that is in them is part of what is measured.

Each runs while the slice is in the phase in which it was called, from acquisition `done` on, and
returns how many there are then.  Waits go to a ring of shared memory, and are counted when all is over;
the time when a wait began, and how many were had, stand in the worker's page at every moment, so that
one that is killed has lost nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

__all__ = ["PAUSES", "RING", "Desk", "array", "bare", "list_of_locks", "worked"]

RING = 1 << 18
"""Waits that a worker keeps: more than it can have in a slice."""
MASK = RING - 1
PAUSES = 256


@dataclass(frozen=True)
class Desk:
    """What a worker has before it."""

    lock: Any
    """Or, for the last two, several."""
    phase: Any
    """[0]: where the slice stands."""
    words: Any
    """The mapping as 64-bit words, and the numbers of those that matter."""
    counter: int
    since: int
    count: int
    ring: Any
    inside: int
    """Turns of work under the lock."""
    outside: Sequence[int]
    """And after it, PAUSES of them."""
    counters: Any = None
    """One for each of several locks."""
    picks: Sequence[int] = ()
    """Which of them is wanted, PAUSES squared of them."""


def bare(d: Desk, now_in: int, done: int) -> int:
    """with lock: counter += 1"""
    lock, phase, words, ring, now = d.lock, d.phase, d.words, d.ring, time.monotonic_ns
    counter, since, count = d.counter, d.since, d.count
    while phase[0] == now_in:
        words[since] = asked = now()
        with lock:
            inside = now()
            words[since] = 0
            words[counter] += 1
        ring[done & MASK] = inside - asked
        done += 1
        words[count] = done
    return done


def worked(d: Desk, now_in: int, done: int) -> int:
    """The same with work under the lock and between."""
    lock, phase, words, ring, now = d.lock, d.phase, d.words, d.ring, time.monotonic_ns
    counter, since, count = d.counter, d.since, d.count
    turns, pauses = d.inside, d.outside
    while phase[0] == now_in:
        words[since] = asked = now()
        with lock:
            inside = now()
            words[since] = 0
            before = words[counter]
            for _ in repeat(None, turns):
                pass
            words[counter] = before + 1
        ring[done & MASK] = inside - asked
        done += 1
        words[count] = done
        for _ in repeat(None, pauses[done % PAUSES]):
            pass
    return done


def array(d: Desk, now_in: int, done: int) -> int:
    """One of many locks, by its number."""
    phase, words, ring, now = d.phase, d.words, d.ring, time.monotonic_ns
    since, count, counters, picks = d.since, d.count, d.counters, d.picks
    acquire, release = d.lock.acquire, d.lock.release
    many = len(picks)
    while phase[0] == now_in:
        pick = picks[done % many]
        words[since] = asked = now()
        acquire(pick)
        inside = now()
        words[since] = 0
        counters[pick] += 1
        release(pick)
        ring[done & MASK] = inside - asked
        done += 1
        words[count] = done
    return done


def list_of_locks(d: Desk, now_in: int, done: int) -> int:
    """One of a list of locks."""
    phase, words, ring, now = d.phase, d.words, d.ring, time.monotonic_ns
    since, count, counters, picks, locks = d.since, d.count, d.counters, d.picks, d.lock
    many = len(picks)
    while phase[0] == now_in:
        pick = picks[done % many]
        lock = locks[pick]
        words[since] = asked = now()
        lock.acquire()
        inside = now()
        words[since] = 0
        counters[pick] += 1
        lock.release()
        ring[done & MASK] = inside - asked
        done += 1
        words[count] = done
    return done


def touch(d: Desk) -> None:
    """Take each of several locks once: the memory of an array of locks comes when it is touched."""
    for pick in set(d.picks):
        if isinstance(d.lock, list):
            with d.lock[pick]:
                pass
        else:
            d.lock.acquire(pick)
            d.lock.release(pick)


def pauses(turns: int, seed: int) -> list[int]:
    """Turns of work between, half of them more or less."""
    chance = random.Random(seed)
    return [turns // 2 + chance.randrange(turns + 1) for _ in range(PAUSES)]


def loops_per_ns() -> float:
    """Turns of Python's work in a nanosecond, from the fastest of several tries."""
    turns = 20_000

    def once() -> int:
        began = time.thread_time_ns()
        for _ in repeat(None, turns):
            pass
        return time.thread_time_ns() - began

    return turns / min(once() for _ in range(50))
