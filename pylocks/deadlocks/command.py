"""The command: which threads of which processes wait for each other."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from time import sleep as pause
from typing import Any

from pylocks import errors
from pylocks.domain import Domain
from pylocks.observe.attaching import attached, named, unused
from pylocks.observe.places import anonymous_places, named_places

from .graph import Cycle, Member, find

NONE, FOUND, UNUSABLE = 0, 1, 2
PERIOD_S = 0.2
LOOKS, BETWEEN_S = 4, 0.02
"""Before it is said that there is none: a thread that looks at its signals is not seen to wait."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``deadlocks`` to the command line."""
    parser = commands.add_parser(
        "deadlocks",
        help="show who waits for whom in a circle",
        description="Find threads that wait for each other in a circle, in one domain or in all "
        "domains of this user, those without a name that living processes have open among them. Nobody "
        "who is looked at notices. Exit status: 0 none, 1 found, 2 the domain can't be looked at.",
    )
    parser.add_argument(
        "domain",
        metavar="DOMAIN",
        nargs="?",
        help="name of a domain, or @ and the beginning of its uid; default: all",
    )
    parser.add_argument(
        "--json", action="store_true", help="as JSON; with --watch an object a line, as they appear"
    )
    parser.add_argument(
        "--watch", action="store_true", help="go on looking until interrupted, and show each one once"
    )
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """Run what the arguments ask for; returns the exit status."""
    try:
        if given.watch:
            return _watch(given)
        found = list(_look(given.domain))
    except (errors.PylocksError, OSError, ValueError) as error:
        print(f"pylocks deadlocks: {error}", file=sys.stderr)
        return UNUSABLE
    if given.json:
        print(json.dumps([_plain(name, cycle) for name, cycle in found], indent=1))
    else:
        for name, cycle in found:
            _show(name, cycle)
        if not found:
            print("no deadlock")
    return FOUND if found else NONE


def _watch(given: argparse.Namespace) -> int:
    shown: set[tuple[Any, ...]] = set()
    try:
        while True:
            standing = {(name, cycle.identity): (name, cycle) for name, cycle in _look(given.domain)}
            for identity, (name, cycle) in standing.items():
                if identity in shown:
                    continue
                shown.add(identity)
                if given.json:
                    print(json.dumps(_plain(name, cycle)), flush=True)
                else:
                    _show(name, cycle)
                    sys.stdout.flush()
            pause(PERIOD_S)
    except KeyboardInterrupt:
        return FOUND if shown else NONE


def _look(name: str | None) -> Iterator[tuple[str, Cycle]]:
    for place in [named(name)] if name is not None else [*named_places(), *anonymous_places()]:
        try:
            if unused(place):
                continue  # and left as it is
            with attached(place) as domain:
                label = domain.name or f"@{domain.uid.hex()[:8]}"
                for cycle in _find(domain):
                    yield label, cycle
        except (errors.DomainError, OSError):
            if name is not None:
                raise  # of all domains some may be of another version, or just gone


def _find(domain: Domain) -> list[Cycle]:
    for _ in range(LOOKS - 1):
        found = find(domain)
        if found or not any(vcpu.held or vcpu.waiting_since for vcpu in domain.vcpus()):
            return found
        pause(BETWEEN_S)
    return find(domain)


def _plain(name: str, cycle: Cycle) -> dict[str, Any]:
    return {"domain": name, "members": [asdict(each) for each in cycle.members]}


def _show(name: str, cycle: Cycle) -> None:
    count = len(cycle.members)
    print(f"deadlock in domain {name!r}: {count} threads wait for each other")
    for at, member in enumerate(cycle.members):
        _show_member(member, cycle.members[(at + 1) % count])


def _show_member(member: Member, blocker: Member) -> None:
    has = "is queued for" if member.queued else "holds"
    name = f" ({member.process})" if member.process else ""
    print(f"  process {member.pid}{name}, thread {member.tid}")
    print(f"    {has} {member.holds!r}")
    print(f"    waits for {member.wants!r} of process {blocker.pid}, {member.waiting_s:.3f} s by now")
