"""A case is one operation of one subject; a batch runs it many times and says how long that took.

Times are CPU times of the thread.  An operation on a free lock never sleeps, so that is all the time
it takes; what other programs take from a batch on a busy machine is not counted.
"""

from __future__ import annotations

import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .. import csubjects, subjects

__all__ = ["C_PAIR", "EMPTY", "OURS", "PEERS", "Batch", "Case", "all_cases", "calibrate"]

C_PAIR = "C pair"
"""The operation of C subjects; those of Python subjects are named in subjects.OPERATIONS."""

OURS = {"with": "pylocks.TicketLock", "pair": "pylocks.TicketLock", C_PAIR: "pylocks"}
"""operation -> the subject that is compared with the others"""

PEERS = {"with": "threading.Lock", "pair": "threading.Lock", C_PAIR: "pthread_mutex"}
"""operation -> the one with which all are compared"""

EMPTY = "empty"
"""The subject, in C and in Python, that measures the harness."""

Batch = Callable[[int], float]
"""Runs the operation so many times; the nanoseconds of CPU time that took."""


@dataclass(frozen=True)
class Case:
    """What one figure is about."""

    operation: str
    subject: str

    @property
    def key(self) -> str:
        """Its name in results."""
        return f"{self.operation} {self.subject}"

    @contextmanager
    def open(self) -> Iterator[Batch]:
        """Make the subject's lock and the batch that uses it; LookupError, OSError, UnavailableError."""
        if self.operation == C_PAIR:
            with csubjects.subject(self.subject).open() as lock:
                yield lock.pairs
            return
        found = subjects.subject(self.subject)
        with found.open(subjects.Terms()) as lock:
            # Each Timer compiles code of its own, so that what the interpreter learns about one
            # subject's types and keeps in the code does not slow down the next subject.
            timer = timeit.Timer(
                found.statements[self.operation],
                "lock = subject_lock",
                timer=time.thread_time_ns,
                globals={"subject_lock": lock},
            )
            yield timer.timeit


def all_cases() -> tuple[Case, ...]:
    """Every operation of every subject; compiles the C subjects."""
    python = [Case(operation, s.name) for operation in subjects.OPERATIONS for s in subjects.SUBJECTS]
    return (*python, *(Case(C_PAIR, s.name) for s in csubjects.subjects()))


def calibrate(batch: Batch, target_ns: float) -> int:
    """Operations in a batch of about target_ns; warms everything up on the way."""
    n = 100
    while (elapsed := batch(n)) < target_ns / 4:
        n *= 2
    return max(1, round(n * target_ns / elapsed))
