"""``pylocks inspect``: one lock, its holder and its queue."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from pylocks import errors
from pylocks.observe import live, stacks, tables
from pylocks.observe.model import (
    Holder,
    Insider,
    Lock,
    Snapshot,
    SyncObject,
    VCpu,
    plain_lock,
    plain_object,
)
from pylocks.observe.people import short_command
from pylocks.observe.survey import Survey
from pylocks.observe.tables import Column, Line, Row
from pylocks.observe.top import object_remark, remark
from pylocks.stress.units import count, duration

__all__ = ["Inspection", "add_parser"]

_COLUMNS = (
    Column("", right=True),
    Column("process", cut=True),
    Column("pid", right=True),
    Column("thread", right=True),
    Column("cpu", right=True),
    Column("state"),
    Column("for", right=True),
    Column("ticket", right=True),
    Column("command", wide=100, cut=True),
)


_OBJECT_COLUMNS = tuple(Column("what") if column.title == "ticket" else column for column in _COLUMNS)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``inspect`` to the command line."""
    parser = commands.add_parser(
        "inspect",
        help="show who holds a lock and who waits for it",
        description="Show the holder of a lock and those who wait for it, in the order in which they will be "
        "served; of a semaphore, an event or their like its state, who waits in order of arrival, and who "
        "holds it, as far as that is known. Looking takes no lock and disturbs nobody. Exit status: 0, 1 if "
        "there is no such lock, 130 after Ctrl-C.",
    )
    parser.add_argument("lock", metavar="LOCK", help="its name, or its index in the domain")
    parser.add_argument(
        "--domain",
        metavar="DOMAIN",
        help="where to look (default: that of TicketLock(name), then all domains of this user)",
    )
    parser.add_argument("--stacks", action="store_true", help="also their Python stacks; needs py-spy")
    live.add_arguments(parser)
    parser.set_defaults(run=_run)


def _run(given: argparse.Namespace) -> int:
    try:
        if given.stacks:
            stacks.program()
        view = Inspection(given.lock, given.domain, given.stacks)
    except (errors.PylocksError, OSError, ValueError) as error:
        return live.refuse("inspect", error)
    return live.run("inspect", view, given)


class Inspection:
    """The view."""

    def __init__(self, lock: str, domain: str | None = None, with_stacks: bool = False) -> None:
        """ValueError, UnknownDomainError for a domain that can't be."""
        self._which, self._where, self._with_stacks = lock, domain, with_stacks
        self._survey = Survey(domain)
        self._uid: str | None = None
        self._first = 0
        self.paused = False
        self.domain: Snapshot
        self.lock: Lock | SyncObject
        self.stacks: dict[int, stacks.Stack] = {}
        self._at = 0.0

    def look(self) -> None:
        """See View; UnknownLockError, and the error of a domain that was named."""
        seen = self._survey.look()
        if self._where is not None and seen[0].error is not None:
            raise seen[0].error
        domains = [row.domain for row in seen if row.domain is not None]
        if self._uid is not None:
            domains = [domain for domain in domains if domain.uid == self._uid]
        self.domain, self.lock = self._choose(domains)
        self._uid, self._at = self.domain.uid, time.time()
        if self._with_stacks:
            here = [v for v in self._people() if v.alive and not v.foreign]
            self.stacks = stacks.stacks((v.pid, v.tid) for v in here)

    def _choose(self, domains: list[Snapshot]) -> tuple[Snapshot, Lock | SyncObject]:
        found = [(domain, lock) for domain in domains if (lock := domain.find(self._which)) is not None]
        if not found:
            where = domains[0].label if self._where is not None and domains else "any domain of this user"
            if self._is_free(domains):
                raise errors.UnknownLockError(f"lock {self._which} of {where} is free")
            known = [lock.name for domain in domains for lock in domain.everything if lock.name is not None]
            some = ", ".join(map(repr, known[:10])) or "none with a name"
            raise errors.UnknownLockError(f"there is no lock {self._which!r} in {where}; there are: {some}")
        if len(found) > 1:
            # TicketLock(name) means the one in the user's own domain.
            own = [(domain, lock) for domain, lock in found if domain.name == f"user.{domain.owner}"]
            if len(own) != 1:
                places = ", ".join(domain.label for domain, _ in found)
                raise errors.UnknownLockError(
                    f"there is a lock {self._which!r} in each of {places}: choose one with --domain"
                )
            found = own
        return found[0]

    def _is_free(self, domains: list[Snapshot]) -> bool:
        """It exists, in the one domain that was named, but is not in the list of those in use."""
        digits = self._which.removeprefix("#")
        if self._where is None or not domains or not (digits.isascii() and digits.isdigit()):
            return False
        return (domains[0].array or domains[0].omitted > 0) and int(digits) < domains[0].lock_limit

    def _people(self) -> Iterator[VCpu]:
        yield from self._holders()
        yield from (waiter.vcpu for waiter in self.lock.waiters)

    def _holders(self) -> list[VCpu]:
        if isinstance(self.lock, Lock):
            return [self.lock.owner.vcpu] if self.lock.owner is not None else []
        return [each.vcpu for each in self.lock.holders]

    def json(self) -> Any:
        """See View."""
        result: dict[str, Any] = {"at": self._at, "domain": self.domain.label}
        if isinstance(self.lock, Lock):
            result["lock"] = plain_lock(self.lock)
        else:
            result["object"] = plain_object(self.lock)
        if self._with_stacks:
            result["stacks"] = {str(tid): list(stack) for tid, stack in self.stacks.items()}
        return result

    def text(self) -> None:
        """See View."""
        for line in self._heading():
            tables.say(line)
        rows = self._rows()
        if rows:
            tables.show(self._columns(), rows)
        for line in self._stack_lines():
            tables.say(line)

    def picture(self, width: int, height: int, interval: float) -> list[Line]:
        """See View."""
        state = "paused" if self.paused else f"every {interval:g} s"
        heading, stack_lines = self._heading(), self._stack_lines()
        rows = self._rows()
        room = max(3, height - len(heading) - 6)
        if stack_lines:
            room = max(3, room // 2)
        self._first = max(0, min(self._first, len(rows) - room))
        left = max(0, height - len(heading) - 5 - min(room, len(rows)))
        return [
            (f"pylocks inspect  {live.clock(self._at)}  {state}", "bold"),
            *((line, "") for line in heading),
            ("", ""),
            *tables.table_lines(self._columns(), rows[self._first : self._first + room], width),
            *((line, "") for line in stack_lines[:left]),
            ("q quit  space pause  arrows scroll", "dim"),
        ]

    def key(self, key: str) -> None:
        """See View."""
        if key in (" ", "p"):
            self.paused = not self.paused
        else:
            steps = {"up": -1, "k": -1, "down": 1, "j": 1, "page up": -10, "page down": 10, "end": 1 << 32}
            self._first = 0 if key == "home" else max(0, self._first + steps.get(key, 0))

    def _columns(self) -> tuple[Column, ...]:
        return _COLUMNS if isinstance(self.lock, Lock) else _OBJECT_COLUMNS

    def _heading(self) -> list[str]:
        domain, lock = self.domain, self.lock
        if not isinstance(lock, Lock):
            return _object_heading(domain, lock)
        said = [
            f"{lock.label} in {domain.label}, {lock.policy}",
            f"{lock.head:,} ticket{'s' * (lock.head != 1)} served",
        ]
        if lock.rate is not None:
            said.append(f"{count(lock.rate)} a second")
        if lock.queued:
            said.append(f"{lock.queued} waiting")
        lines = ["; ".join(said)]
        if not lock.busy:
            lines.append("free")
        elif lock.owner is None:
            lines.append("on its way to the next in line")
        unknown = lock.queued - len(lock.waiters) - lock.tombstones
        if unknown > 0 and not lock.changing:
            lines.append(f"{unknown} of the tickets belong to nobody who is known")
        if remark(lock):
            lines.append(remark(lock))
        if domain.policy:
            lines.append(f"waiters go by what the service says: {domain.policy}")
        if lock.changing:
            lines.append("changing while it is looked at: holder and queue may be of different moments")
        return lines

    def _rows(self) -> list[Row]:
        if not isinstance(self.lock, Lock):
            return _object_rows(self.lock)
        rows = []
        owner = self.lock.owner
        if owner is not None:
            held = owner.held_at_least_ns
            style = "bold" if owner.vcpu.alive else "red"
            what = str(owner.ticket)
            rows.append(_row("holds", owner.vcpu, f"≥ {duration(held)}" if held else "", what, style))
        for number, waiter in enumerate(self.lock.waiters, 1):
            waited = duration(waiter.waited_ns) if waiter.waited_ns is not None else ""
            style = "" if waiter.vcpu.alive else "red"
            ticket = str(waiter.ticket) if waiter.ticket is not None else ""
            rows.append(_row(str(number), waiter.vcpu, waited, ticket, style))
        return rows

    def _stack_lines(self) -> list[str]:
        lines = []
        holders = {vcpu.index for vcpu in self._holders()}
        for vcpu in dict.fromkeys(self._people()):
            stack = self.stacks.get(vcpu.tid)
            if stack is not None:
                holds = vcpu.index in holders
                lines += ["", f"thread {vcpu.tid} of process {vcpu.pid} {'holds' if holds else 'waits'}:"]
                lines += [f"    {frame}" for frame in stack]
        return lines


def _object_heading(domain: Snapshot, found: SyncObject) -> list[str]:
    said = [f"{found.label} in {domain.label}, {found.kind}", found.state]
    if found.queued:
        said.append(f"{found.queued} waiting")
    lines = ["; ".join(said)]
    if found.lock is not None:
        lines.append(_lock_of(domain, found.lock))
    if object_remark(found):
        lines.append(object_remark(found))
    if found.changing:
        lines.append("changing while it is looked at: state and queue may be of different moments")
    return lines


def _lock_of(domain: Snapshot, index: int) -> str:
    """Of a condition: who is notified needs it before it can go on."""
    lock = domain.find(f"#{index}")
    if lock is None:
        return f"its lock, #{index}, is free"
    holder: Holder | Insider | None
    if isinstance(lock, Lock):
        what, holder = lock.policy, lock.owner
    else:
        what, holder = lock.kind, lock.holders[0] if lock.holders else None
    if holder is None:
        state = "is held" if lock.busy else "is free"
    else:
        state = f"is held by thread {holder.vcpu.tid} of process {holder.vcpu.pid}"
    waiting = f"; {lock.queued} waiting" if lock.queued else ""
    return f"its lock, {lock.label} ({what}), {state}{waiting}"


def _object_rows(found: SyncObject) -> list[Row]:
    rows = []
    for each in found.holders:
        much = f"{each.what} × {each.count}" if each.count > 1 else each.what
        rows.append(_row("holds", each.vcpu, "", much, "bold" if each.vcpu.alive else "red"))
    for number, waiter in enumerate(found.waiters, 1):
        waited = duration(waiter.waited_ns) if waiter.waited_ns is not None else ""
        what = f"{waiter.what}, in a signal handler" if waiter.aside else waiter.what
        rows.append(_row(str(number), waiter.vcpu, waited, what, "" if waiter.vcpu.alive else "red"))
    return rows


def _row(place: str, vcpu: VCpu, time_: str, what: str, style: str) -> Row:
    state = vcpu.state or ("?" if vcpu.alive else "dead")
    return Row(
        [
            place,
            short_command(vcpu.process, vcpu.command) or ("?" if vcpu.alive else "(dead)"),
            str(vcpu.pid),
            str(vcpu.tid),
            str(vcpu.cpu) if vcpu.cpu is not None else "",
            "parked" if vcpu.parked and state == "sleeping" else state,
            time_,
            what,
            vcpu.command or "",
        ],
        "yellow" if state in ("stopped", "traced") else style,
    )
