"""How long a lock is out of reach after its holder was killed.

A process that holds the lock is killed with SIGKILL while others wait; the time runs from just before
the kill until the next of them is inside.  Nobody helps: the waiters find it out by themselves.
"""

from __future__ import annotations

import os
import random
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from statistics import quantiles
from typing import Any

from .arena import Slice, child
from .sample import Sample

__all__ = ["play"]

LIMIT_S = 60
WORD = 8  # written to a pipe at once, and read at once
LEAST = 2
"""Kills in a slice."""
SETTLE_S = (0.005, 0.035)
"""The kill comes at any time of a waiter's watchdog, which is 30 ms."""


def play(lock: Any, inherit: Callable[[Any], Any], plan: Slice) -> Sample:
    """So many waiters, and as many kills as the time allows."""
    times: list[int] = []
    chance = random.Random(plan.seed)
    until = time.monotonic() + plan.seconds
    while len(times) < LEAST or time.monotonic() < until:
        times.append(_succession(lock, inherit, plan.processes, chance))
    seconds = sum(times) / 1e9
    cuts = quantiles(times, n=1000, method="inclusive")
    return Sample(
        seconds=seconds,
        acquisitions=len(times),
        rate=len(times) / seconds,
        p50=cuts[499],
        p99=cuts[989],
        p999=cuts[998],
        max=float(max(times)),
    )


def _word(number: int) -> bytes:
    return number.to_bytes(WORD, sys.byteorder)


def _succession(lock: Any, inherit: Callable[[Any], Any], waiters: int, chance: random.Random) -> int:
    """Nanoseconds from one kill until the next is inside."""
    readable, writable = os.pipe()

    def hold() -> None:
        mine = inherit(lock)  # some release when they are collected
        mine.acquire()
        os.write(writable, _word(0))
        time.sleep(1000)

    def wait() -> None:
        mine = inherit(lock)
        os.write(writable, _word(0))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it died, we know
            mine.acquire()
        inside = time.monotonic_ns()
        mine.release()
        os.write(writable, _word(inside))

    children: list[int] = []
    try:
        children.append(child(hold))
        _said(readable)
        for _ in range(waiters):
            children.append(child(wait))
            _said(readable)
        time.sleep(chance.uniform(*SETTLE_S))
        began = time.monotonic_ns()
        os.kill(children[0], signal.SIGKILL)
        inside = [_said(readable) for _ in range(waiters)]
        return inside[0] - began
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)  # not yet waited for: the pid is still its own
        for pid in children:
            os.waitpid(pid, 0)
        os.close(readable)
        os.close(writable)


def _said(readable: int) -> int:
    """The next number that a child tells; TimeoutError."""
    ready, _, _ = select.select([readable], [], [], LIMIT_S)
    if not ready:
        raise TimeoutError(f"the lock of a killed process was not handed on within {LIMIT_S} s")
    return int.from_bytes(os.read(readable, WORD), sys.byteorder)
