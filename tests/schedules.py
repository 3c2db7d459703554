"""Forcing schedules: who stops before which access to shared memory, and who runs meanwhile."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from typing import Any

from parties import Access, Party
from staging import CELL, Stage
from words import Words


class Overslept(Exception):
    """The watchdog ended a sleep so late that the schedule may have taken too long itself."""


def overslept(*parties: Party) -> None:
    """Fail if a waiter was woken by its watchdog and not by a kick."""
    for party in parties:
        if party.overslept:
            if time.monotonic() - party.began < 0.045:
                raise AssertionError("a kick was lost: the watchdog ended the sleep")
            raise Overslept


ATTEMPTS = 40


QUEUE = frozenset({"cells", "channels"})
TOMBS = QUEUE | {"tombs", "header"}
"""Where threads meet: a vCPU's own slot is read by others only when somebody has died."""


def meeting(words: Words, regions: frozenset[str], slots: Collection[int] = ()) -> Callable[[Access], bool]:
    """Tells accesses whose order between two threads that meet in these regions matters.

    slots: vCPUs whose slots are looked at, too.

    Of the 32 places in which a tombstone may stand, with none standing yet, only the first is ever
    written; of the header, only the counts of tombstones change.
    """
    head = words.read(CELL)["head"]
    homes = {words.tomb_slots(CELL, ticket)[0] for ticket in range(head, head + 4)}

    counts = {words.layout[f"header.{name}"] for name in ("tombs_live", "tombs_version")}
    size, start = words.layout["vcpu"], words.geometry["off_vcpus"]

    def matters(access: Access) -> bool:
        if access.region == "vcpus" and (access.offset - start) // size in slots:
            return True
        if access.region == "tombs" and access.offset not in homes:
            return False
        if access.region == "header" and access.offset not in counts:
            return False
        return access.region in regions

    return matters


ALL = os.environ.get("PYLOCKS_ALL_SCHEDULES") == "1"
"""Try every schedule, where a sample would do otherwise: hours instead of minutes."""

ENDLESS = 10**6


def explore(
    words: Words,
    regions: frozenset[str],
    first: Party,
    do_first: str,
    second: Party,
    do_second: str,
    prepare: Callable[[], None],
    conclude: Callable[[], None],
    between: Callable[[], None] = lambda: None,
    slots: Collection[int] = (),
    sample: int = 0,
) -> set[tuple[int, int]]:
    """Force every schedule of the two operations with at most two switches; where they were stopped.

    Without a second operation: of the first with all that others do meanwhile.  sample: only so many
    of them, spread evenly, where one operation is long; the same ones each time.

    between() is what others do when the first has been stopped.  conclude() ends both operations,
    leaves the lock free, and checks what must be true; it may raise Overslept where a slow machine
    could be the reason, and the schedule is tried again.
    """

    def run(stop_first: int, stop_second: int) -> tuple[int, int]:
        """Where they really stopped."""
        for attempt in range(ATTEMPTS):
            matters = meeting(words, regions, slots)
            prepare()
            first.begin(do_first)
            got_first = len(first.pass_accesses(stop_first, matters))
            between()
            got_second = -1
            if do_second:
                second.begin(do_second)
                got_second = len(second.pass_accesses(stop_second, matters))
            first.sleep_or_end()
            if do_second:
                second.sleep_or_end()
            where = f"{do_first} stopped before access {got_first}, {do_second} before {got_second}"
            try:
                conclude()
                return got_first, got_second
            except Overslept:
                assert attempt < ATTEMPTS - 1, f"{where}: the watchdog ended a sleep again and again"
            except AssertionError as error:
                raise AssertionError(f"{where}: {error}") from error
        raise AssertionError("not reached")

    if sample and not ALL:
        return {run(*stops) for stops in _spread(sample, run(ENDLESS, 0)[0], run(0, ENDLESS)[1])}
    schedules = set()
    stop_first = 0
    while True:
        stop_second = 0
        while True:
            got_first, got_second = run(stop_first, stop_second)
            schedules.add((got_first, got_second))
            if got_second < stop_second:
                break
            stop_second += 1
        if got_first < stop_first:
            return schedules
        stop_first += 1


SAMPLE = 40
"""Schedules of each pair of operations, one of which is a recovery: it has some hundred accesses."""


def explore_some(s: Stage, *what: Any, slots: Collection[int] = ()) -> None:
    """explore(s.words, *what) SAMPLE schedules, which must not turn out to be the same few."""
    schedules = explore(s.words, *what, slots=slots, sample=SAMPLE)
    assert len(schedules) >= SAMPLE // 2


def _spread(count: int, most_first: int, most_second: int) -> set[tuple[int, int]]:
    """So many points of the rectangle (the additive recurrence R2: no clusters, no gaps)."""
    steps = (0.7548776662466927, 0.5698402909980532)
    return {
        (int(steps[0] * k % 1 * (most_first + 1)), int(steps[1] * k % 1 * (most_second + 1)))
        for k in range(1, count + 1)
    }


def both_ways(
    words: Words,
    regions: frozenset[str],
    one: Party,
    do_one: str,
    other: Party,
    do_other: str,
    prepare: Callable[[], None],
    conclude: Callable[[], None],
    slots: Collection[int] = (),
) -> None:
    """explore() with each of the two as the first."""
    schedules = explore(words, regions, one, do_one, other, do_other, prepare, conclude, slots=slots)
    back = explore(words, regions, other, do_other, one, do_one, prepare, conclude, slots=slots)
    schedules |= {(b, a) for a, b in back}
    # A path that got shorter than the handshake it is about would prove nothing.
    assert len({a for a, _ in schedules}) >= 4 and len({b for _, b in schedules}) >= 4, schedules


def until_served(holder: Party, s: Stage) -> None:
    """Let the holder's unlock go on until the next ticket is served, and not an access further."""
    holder.begin("unlock(0)")
    head = s.words.read(CELL)["head"]
    while s.words.read(CELL)["head"] == head:
        assert len(holder.pass_accesses(1, meeting(s.words, QUEUE))) == 1


def slot_of(s: Stage, party: Party) -> int:
    return s.words.vcpu_of(party.process.pid)


def take(party: Party, queued: int = 1) -> None:
    assert party.ask("stepping.take(0)") == queued


def turn_and_release(party: Party) -> None:
    assert party.ask("stepping.turn(0)") == 0
    assert party.ask("stepping.unlock(0)") == 0
