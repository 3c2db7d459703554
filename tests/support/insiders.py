"""Who is inside a semaphore or its like and who waits, arranged for those who look at it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pylocks.observe import SyncObject, snapshot
from support.syncs import Forked
from support.wait import until


def seen(thing: Any) -> SyncObject:
    """The object as an observer sees it."""
    found = snapshot(thing.domain).find(f"#{thing.index}")
    assert isinstance(found, SyncObject)
    return found


def rest(thing: Any) -> SyncObject:
    """The same, when it held still."""
    until(lambda: not seen(thing).changing, f"{thing!r} to hold still")
    return seen(thing)


def forever() -> None:
    """Until it is killed."""
    while True:
        signal.pause()


@contextmanager
def in_a_row(thing: Any, *waits: Callable[[], object]) -> Iterator[list[Forked]]:
    """A child for each, which waits for the thing behind the ones before."""
    children: list[Forked] = []
    try:
        for wait in waits:
            children.append(Forked(wait))
            until(lambda: len(seen(thing).waiters) == len(children), f"{thing!r} to be waited for")
        yield children
    finally:
        for child in children:
            child.kill()


@contextmanager
def inside(thing: Any, *enters: Callable[[], object]) -> Iterator[list[Forked]]:
    """A child for each that has entered and stays, one after the other."""

    def stay(enter: Callable[[], object]) -> Callable[[], object]:
        return lambda: (enter(), forever())

    children: list[Forked] = []
    try:
        for enter in enters:
            children.append(Forked(stay(enter)))
            until(lambda: len(seen(thing).holders) == len(children), f"{thing!r} to be entered")
        yield children
    finally:
        for child in children:
            child.kill()


def who(rows: tuple[Any, ...]) -> list[tuple[int, str]]:
    return [(row.vcpu.pid, row.what) for row in rows]


def pids(children: list[Forked]) -> list[int]:
    return [child.pid for child in children]
