"""``pylocks top``: the locks of one domain or of all, the most wanted first."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pylocks import errors
from pylocks.observe import live, tables
from pylocks.observe.model import Holder, Insider, Lock, Snapshot, SyncObject
from pylocks.observe.people import short_command
from pylocks.observe.survey import Seen, Survey, plain_survey
from pylocks.observe.tables import Column, Line, Row
from pylocks.stress.units import count, duration

__all__ = ["ORDERS", "Top", "add_parser"]

Entry = tuple[Snapshot, Lock | SyncObject]

ORDERS: dict[str, Callable[[Entry], Any]] = {
    "waiting": lambda e: (e[1].queued, e[1].longest_wait_ns or 0, _rate(e[1]), e[1].busy),
    "waited": lambda e: e[1].longest_wait_ns or -1,
    "held": lambda e: _held_ns(e[1]),
    "rate": lambda e: _rate(e[1]),
    "served": lambda e: e[1].head if isinstance(e[1], Lock) else -1,
    "name": lambda e: (e[0].label, e[1].label),
}
"""What the table can be sorted by; the largest first, names from A."""


def _rate(each: Lock | SyncObject) -> float:
    return each.rate or 0.0 if isinstance(each, Lock) else 0.0


def _held_ns(each: Lock | SyncObject) -> int:
    if not isinstance(each, Lock):
        return 0 if each.busy else -1
    return (each.owner.held_at_least_ns or 0) if each.owner is not None else -1


_COLUMNS = (
    Column("domain", wide=100, cut=True),
    Column("lock", cut=True),
    Column("waiting", right=True),
    Column("longest", right=True),
    Column("held by", cut=True),
    Column("pid", right=True),
    Column("tid", right=True, wide=110),
    Column("cpu", right=True, wide=90),
    Column("held", right=True),
    Column("per s", right=True),
    Column("served", right=True, wide=90),
    Column("policy", wide=120),
    Column(""),
)
_FRAME = 7
"""Lines of the screen that are not locks."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``top`` to the command line."""
    parser = commands.add_parser(
        "top",
        help="watch locks: who holds them, how many wait, for how long",
        description="Watch the locks of a domain, or of all domains of this user. Looking takes no lock and "
        "disturbs nobody. How long a lock is held is known from the second look on. Exit status: 0, 1 if "
        "there is no such domain, 130 after Ctrl-C.",
    )
    parser.add_argument(
        "domain", nargs="?", metavar="DOMAIN", help="a name, or @ and digits, as pylocks ls shows them"
    )
    parser.add_argument("--sort", choices=tuple(ORDERS), default="waiting", help="default: %(default)s")
    live.add_arguments(parser)
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    try:
        view = Top(given.domain, given.sort)
    except (errors.PylocksError, OSError, ValueError) as error:
        return live.refuse("top", error)
    return live.run("top", view, given)


@dataclass
class _Choice:
    """What the keys have chosen."""

    order: str
    reverse: bool = False
    busy_only: bool = False
    first: int = 0


class Top:
    """The view."""

    def __init__(self, domain: str | None = None, order: str = "waiting") -> None:
        """ValueError, UnknownDomainError for a domain that can't be."""
        self._survey, self._named = Survey(domain), domain is not None
        # One that was named need not be named in each line.
        self._first = 1 if self._named else 0
        self.choice = _Choice(order)
        self.paused = False
        self.seen: list[Seen] = []
        self._page = 10
        self._at = 0.0

    def look(self) -> None:
        """See View; the error of a domain that was named."""
        seen = self._survey.look()
        if self._named and seen[0].error is not None:
            raise seen[0].error
        self.seen, self._at = seen, time.time()

    def json(self) -> Any:
        """See View."""
        return {"at": self._at, **plain_survey(self.seen)}

    def text(self) -> None:
        """See View."""
        tables.say(self._summary())
        rows = [_row(entry, self._first) for entry in self._entries()]
        if rows:
            tables.show(_COLUMNS[self._first :], rows)
        for line in self._complaints():
            tables.say(line, style="yellow")

    def picture(self, width: int, height: int, interval: float) -> list[Line]:
        """See View."""
        complaints = self._complaints()[:3]
        self._page = max(1, height - _FRAME - len(complaints))
        entries = self._entries()
        choice = self.choice
        choice.first = max(0, min(choice.first, len(entries) - self._page))
        shown = entries[choice.first : choice.first + self._page]
        direction = ", reversed" if choice.reverse else ""
        only = ", busy ones only" if choice.busy_only else ""
        state = "paused" if self.paused else f"every {interval:g} s"
        some = f"{choice.first + 1}-{choice.first + len(shown)} of {len(entries)}" if shown else "none"
        return [
            (f"pylocks top  {live.clock(self._at)}  {state}", "bold"),
            (self._summary(), ""),
            ("", ""),
            *tables.table_lines(
                _COLUMNS[self._first :], [_row(entry, self._first) for entry in shown], width
            ),
            *((line, "yellow") for line in complaints),
            (f"{some}, by {choice.order}{direction}{only}", "dim"),
            ("q quit  space pause  s sort  r reverse  b busy only  arrows scroll", "dim"),
        ]

    def key(self, key: str) -> None:
        """See View."""
        choice = self.choice
        if key in (" ", "p"):
            self.paused = not self.paused
        elif key in ("s", "S"):
            names = list(ORDERS)
            step = 1 if key == "s" else -1
            choice.order, choice.first = names[(names.index(choice.order) + step) % len(names)], 0
        elif key == "r":
            choice.reverse = not choice.reverse
        elif key == "b":
            choice.busy_only = not choice.busy_only
        else:
            steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -self._page, "page down": self._page}
            ends = {"home": -choice.first, "end": 1 << 32}
            choice.first = max(0, choice.first + {**steps, **ends}.get(key, 0))

    def _entries(self) -> list[Entry]:
        choice = self.choice
        entries = [
            (row.domain, each)
            for row in self.seen
            if row.domain is not None
            for each in row.domain.everything
        ]
        if choice.busy_only:
            entries = [(domain, each) for domain, each in entries if each.busy or each.queued]
        # Equals stay in the order of their names.
        entries.sort(key=ORDERS["name"])
        entries.sort(key=ORDERS[choice.order], reverse=(choice.order != "name") != choice.reverse)
        return entries

    def _summary(self) -> str:
        domains = [row.domain for row in self.seen if row.domain is not None]
        found = [each for domain in domains for each in domain.everything]
        others = sum(len(domain.objects) for domain in domains)
        locks = len(found) - others + sum(domain.omitted for domain in domains)
        vcpus = [vcpu for domain in domains for vcpu in domain.vcpus]
        dead = sum(not vcpu.alive for vcpu in vcpus)
        said = [
            f"{len(domains)} domain{'s' * (len(domains) != 1)}" if not self._named else domains[0].label,
            f"{locks:,} locks",
            *([f"{others:,} others"] if others else []),
            f"{sum(each.busy for each in found):,} held",
            f"{sum(len(each.waiters) for each in found):,} waiting",
            f"{len(vcpus) - dead:,} threads",
        ]
        return ", ".join(said + ([f"{dead} dead"] if dead else []))

    def _complaints(self) -> list[str]:
        return [tables.words(row.error) for row in self.seen if row.error is not None]


def _row(entry: Entry, first: int) -> Row:
    """The cells of _COLUMNS from the first to be shown on."""
    domain, lock = entry
    if not isinstance(lock, Lock):
        return _object_row(domain, lock, first)
    owner = lock.owner
    holder = owner.vcpu if owner is not None else None
    return Row(
        [
            domain.label,
            lock.label,
            str(lock.queued) if lock.queued else "",
            duration(lock.longest_wait_ns) if lock.longest_wait_ns is not None else "",
            _name(owner) if owner is not None else "",
            str(holder.pid) if holder is not None else "",
            str(holder.tid) if holder is not None else "",
            str(holder.cpu) if holder is not None and holder.cpu is not None else "",
            _held(owner),
            count(lock.rate) if lock.rate else "",
            f"{lock.head:,}",
            lock.policy,
            remark(lock),
        ][first:],
        _style(lock),
    )


def _object_row(domain: Snapshot, found: SyncObject, first: int) -> Row:
    """The same of a semaphore or its like, which has no tickets to be counted."""
    one = found.holders[0].vcpu if found.holders else None
    more = f" +{len(found.holders) - 1}" if len(found.holders) > 1 else ""
    return Row(
        [
            domain.label,
            found.label,
            str(found.queued) if found.queued else "",
            duration(found.longest_wait_ns) if found.longest_wait_ns is not None else "",
            f"{_name(found.holders[0])}{more}" if found.holders else "",
            str(one.pid) if one is not None else "",
            str(one.tid) if one is not None else "",
            str(one.cpu) if one is not None and one.cpu is not None else "",
            "",
            "",
            "",
            found.kind,
            ", ".join(filter(None, (found.state, object_remark(found)))),
        ][first:],
        _object_style(found),
    )


def _name(owner: Holder | Insider) -> str:
    return short_command(owner.vcpu.process, owner.vcpu.command) or "?"


def _held(owner: Holder | None) -> str:
    if owner is None or owner.held_at_least_ns is None:
        return ""
    return f"≥ {duration(owner.held_at_least_ns)}"


def remark(lock: Lock) -> str:
    """What is special about the lock, in a few words."""
    said = []
    if lock.owner is not None and not lock.owner.vcpu.alive:
        said.append("holder is dead")
    elif lock.owner is not None and lock.owner.vcpu.state in ("stopped", "traced"):
        said.append(f"holder is {lock.owner.vcpu.state}")
    if lock.owner_died:
        said.append("a holder died")
    if lock.tombstones:
        said.append(f"{lock.tombstones} gave up")
    return ", ".join(said)


def object_remark(found: SyncObject) -> str:
    """The same of a semaphore or its like."""
    said = []
    if found.lost or any(not each.vcpu.alive for each in found.holders):
        said.append("holder is dead")
    for state in ("stopped", "traced"):
        if any(each.vcpu.state == state for each in found.holders):
            said.append(f"holder is {state}")
    if found.owner_died:
        said.append("a holder died")
    return ", ".join(said)


def _object_style(found: SyncObject) -> str:
    if object_remark(found):
        return "red" if found.half_done else "yellow"
    return "bold" if found.queued else "" if found.busy else "dim"


def _style(lock: Lock) -> str:
    if remark(lock):
        return "red" if lock.owner_died or (lock.owner and not lock.owner.vcpu.alive) else "yellow"
    return "bold" if lock.queued else "" if lock.busy else "dim"
