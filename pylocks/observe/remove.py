"""Removing the names of domains, of those that are dead or by force.

A domain is dead if nobody is attached.  That is proved, not looked up: everybody who is attached,
in whatever container, keeps a shared flock on the file, and an exclusive one is held here while the
name is removed.  Whoever comes meanwhile waits for that, finds the file without a name, and starts over.
"""

from __future__ import annotations

import errno
import fcntl
import os
from dataclasses import dataclass
from typing import Any

from pylocks import errors, segment
from pylocks._core import ffi, lib
from pylocks.observe.model import Snapshot
from pylocks.observe.people import short_command
from pylocks.observe.places import Place
from pylocks.observe.snap import snapshot

__all__ = ["Removed", "remove"]


@dataclass(frozen=True)
class Removed:
    """A name that is gone."""

    name: str
    path: str
    attached: bool
    """Processes go on with it."""
    half_done: tuple[str, ...]
    """Locks that threads held when they died: what they protect may be half-done."""

    def say(self) -> str:
        """In words."""
        said = self.name
        if self.attached:
            said += "; the processes that have it go on with its locks, apart from those that come now"
        if self.half_done:
            said += f"; threads died while they held {', '.join(self.half_done)}: that may be half-done"
        return said

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**vars(self), "half_done": list(self.half_done)}


def remove(place: Place, force: bool = False) -> Removed:
    """Remove the domain's name if nobody is attached, or by force.

    Raises DomainBusyError, ForeignFileError for what is no domain, DomainPermissionError,
    UnknownDomainError, and DomainError for one without a name.
    """
    if place.name is None:
        raise errors.DomainError(f"{place.where} has no name to remove: it goes with its last process")
    fd = place.open()
    try:
        _check_that_it_is_one(fd, place, force)
        alone = _alone(fd, place)
        found = _look(place)
        if not alone and not force:
            raise errors.DomainBusyError(
                f"{place.where} is in use{_by_whom(found)}; end them, or use --force: they go on with "
                "its locks then, and whoever comes later makes another domain"
            )
        _unlink(fd, place)
    finally:
        os.close(fd)  # and with it the lock
    return Removed(place.name, place.path, not alone, _half_done(found))


def _check_that_it_is_one(fd: int, place: Place, force: bool) -> None:
    """Damaged ones may go; what is no domain may not, and one of another version by force alone."""
    raw = ffi.new("struct plk_found *")
    rc = lib.plk_inspect(fd, raw)
    if rc == -lib.PLK_E_FOREIGN:
        raise segment.refusal(rc, raw, place.where)
    if rc == -lib.PLK_E_ABI and not force:
        refusal = segment.refusal(rc, raw, place.where)
        raise errors.AbiMismatchError(f"{refusal}; --force removes it all the same")


def _alone(fd: int, place: Place) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise segment.not_opened(place.where, error) from None
    return True


def _look(place: Place) -> Snapshot | None:
    try:
        return snapshot(place)
    except (errors.DomainError, OSError):
        return None  # damaged: nothing is to be learnt from it


def _by_whom(found: Snapshot | None) -> str:
    """ " by shop.py (12), till.py (13)" """
    users = {
        vcpu.pid: short_command(vcpu.process, vcpu.command) or "process"
        for vcpu in (found.vcpus if found is not None else ())
        if vcpu.alive
    }
    named = ", ".join(f"{name} ({pid})" for pid, name in sorted(users.items())[:5])
    more = f" and {len(users) - 5} more" if len(users) > 5 else ""
    return f" by {named}{more}" if named else " by processes that have used no lock of it yet"


def _unlink(fd: int, place: Place) -> None:
    mine, now = os.fstat(fd), None
    try:
        now = os.stat(place.path, follow_symlinks=False)
        if (now.st_dev, now.st_ino) == (mine.st_dev, mine.st_ino):
            os.unlink(place.path)
            return
    except FileNotFoundError:
        pass
    except PermissionError:
        raise errors.DomainPermissionError(
            errno.EACCES, f"{place.where} belongs to user {mine.st_uid}: this user may not remove it"
        ) from None
    raise errors.UnknownDomainError(errno.ENOENT, f"the name of {place.where} has been removed already")


def _half_done(found: Snapshot | None) -> tuple[str, ...]:
    if found is None:
        return ()
    return tuple(each.label for each in found.everything if each.half_done)
