"""``pylocks ls`` and ``pylocks rm``."""

from __future__ import annotations

import argparse
import json
import sys

from pylocks import errors
from pylocks.observe import remove, tables
from pylocks.observe.model import Snapshot
from pylocks.observe.people import short_command
from pylocks.observe.places import place_of
from pylocks.observe.survey import Seen, Survey, plain_survey
from pylocks.observe.tables import Column, Row

__all__ = ["add_parser"]

_COLUMNS = (
    Column("domain", cut=True),
    Column("state"),
    Column("locks", right=True),
    Column("held", right=True),
    Column("waiting", right=True),
    Column("threads", right=True),
    Column("created by", wide=90, cut=True),
    Column("age", right=True),
    Column("memory", right=True, wide=80),
    Column("how", wide=100),
)


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add ``ls`` and ``rm`` to the command line."""
    ls = commands.add_parser(
        "ls",
        help="list this user's domains",
        description="List the domains of this user: those with a name, and those without one that living "
        "processes have open. Looking at them disturbs nobody.",
    )
    ls.add_argument("--json", action="store_true", help="as JSON on standard output")
    ls.add_argument(
        "--prune", action="store_true", help="remove the named domains to which nobody is attached any more"
    )
    ls.set_defaults(run=_ls)
    rm = commands.add_parser(
        "rm",
        help="remove domains",
        description="Remove domains by name. Exit status: 0, or 1 if one was not removed.",
    )
    rm.add_argument("domain", nargs="+", metavar="DOMAIN", help="a name, as pylocks ls shows it")
    rm.add_argument(
        "--force",
        action="store_true",
        help="also if processes are attached: they go on with its locks, new ones make another domain",
    )
    rm.set_defaults(run=_rm)


def _ls(given: argparse.Namespace) -> int:
    seen = Survey().look()
    gone = [_prune(row) for row in seen if row.place.name is not None] if given.prune else []
    removed = [outcome for outcome in gone if outcome is not None]
    if removed:
        paths = {outcome.path for outcome in removed}
        seen = [row for row in seen if row.place.path not in paths]
    if given.json:
        result = plain_survey(seen)
        if given.prune:
            result["removed"] = [outcome.plain() for outcome in removed]
        print(json.dumps(result, indent=1))
        return 0
    for outcome in removed:
        tables.say(f"removed {outcome.say()}")
    if seen:
        tables.show(_COLUMNS, [_row(row) for row in seen])
    elif not removed:
        tables.say("no domains")
    for row in seen:
        if row.error is not None:
            tables.say(tables.words(row.error), style="yellow")
    return 0


def _prune(row: Seen) -> remove.Removed | None:
    try:
        return remove.remove(row.place)
    except (errors.DomainError, OSError):
        return None  # in use, or not for us to remove; it stays in the list, which says what it is


def _row(row: Seen) -> Row:
    found = row.domain
    if found is None:
        return Row([row.label, _kind(row.error), *([""] * (len(_COLUMNS) - 2))], "yellow")
    return Row(
        [
            found.label,
            _state(found),
            str(len(found.everything) + found.omitted),
            str(sum(each.busy for each in found.everything)),
            str(sum(len(each.waiters) for each in found.everything)),
            str(sum(vcpu.alive for vcpu in found.vcpus)),
            _creator(found),
            tables.age(found.age_s),
            tables.memory(found.memory),
            f"{found.protocol}, {found.slow_path}{', array' if found.array else ''}{_told(found)}",
        ],
        "dim" if found.abandoned else "",
    )


def _told(found: Snapshot) -> str:
    return f", service: {found.policy}" if found.policy else ""


def _kind(error: Exception | None) -> str:
    """``ForeignFileError`` -> ``foreign file``."""
    name = type(error).__name__.removesuffix("Error")
    return "".join(f" {c.lower()}" if c.isupper() else c for c in name).strip()


def _state(found: Snapshot) -> str:
    if any(each.owner_died for each in found.everything):
        return "holder died"
    if any(not vcpu.alive for vcpu in found.vcpus) and not found.abandoned:
        return "in use, some dead"
    return "abandoned" if found.abandoned else "in use"


def _creator(found: Snapshot) -> str:
    maker = next((v for v in found.vcpus if v.pid == found.creator_pid and v.process), None)
    if maker is None:
        return str(found.creator_pid)
    return f"{short_command(maker.process, maker.command)} ({found.creator_pid})"


def _rm(given: argparse.Namespace) -> int:
    status = 0
    for name in given.domain:
        try:
            outcome = remove.remove(place_of(name), force=given.force)
            tables.say(f"removed {outcome.say()}")
        except (errors.DomainError, OSError, ValueError) as error:
            print(f"pylocks rm: {tables.words(error)}", file=sys.stderr)
            status = 1
    return status
