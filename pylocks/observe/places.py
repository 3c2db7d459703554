"""Where domains are: files under /dev/shm, and descriptors of living processes."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pylocks import errors, segment

if TYPE_CHECKING:
    from pylocks.domain import Domain

__all__ = ["Place", "anonymous_places", "flocked", "named_places", "place_of"]

_PREFIX = segment.PREFIX.lstrip("/")
_LINK = re.compile(
    rf"/memfd:pylocks( \(deleted\))?|{re.escape(segment.SHM + segment.PREFIX)}(.*) \(deleted\)"
)


@dataclass(frozen=True)
class Place:
    """A file that may be a domain."""

    name: str | None
    """None: it has no name (any more)."""
    path: str
    pids: tuple[int, ...] = field(default=())
    """For one without a name: the processes of this user that have it open."""

    @property
    def where(self) -> str:
        """For messages."""
        if self.name is not None:
            return f"domain {self.name!r} ({self.path})"
        return f"the anonymous domain at {self.path}"

    def open(self) -> int:
        """A descriptor that can only read; UnknownDomainError, DomainPermissionError, ForeignFileError."""
        try:
            # No name of a segment may block (a pipe) or lead elsewhere (a link, unless /proc's own).
            follow = 0 if self.path.startswith("/proc/") else os.O_NOFOLLOW
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | follow)
        except (FileNotFoundError, ProcessLookupError):
            gone = f"there is no {self.where}" if self.name is not None else f"{self.where} is gone"
            raise errors.UnknownDomainError(errno.ENOENT, gone) from None
        except PermissionError as error:
            raise errors.DomainPermissionError(
                errno.EACCES, f"{self.where} belongs to somebody else: this user may not read it"
            ) from error
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
                raise self._foreign() from None
            raise segment.not_opened(self.where, error) from None
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._foreign()
        return fd

    def _foreign(self) -> Exception:
        return errors.ForeignFileError(f"{self.where} is not a regular file; it is left as it is")


def named_places(user: int | None = None) -> list[Place]:
    """The files under /dev/shm that are named as domains are and belong to the user, by default this one."""
    user = os.geteuid() if user is None else user
    found = []
    try:
        with os.scandir(segment.SHM) as entries:
            for entry in entries:
                try:
                    if entry.name.startswith(_PREFIX) and entry.stat(follow_symlinks=False).st_uid == user:
                        found.append(Place(entry.name.removeprefix(_PREFIX), entry.path))
                except FileNotFoundError:
                    continue  # just removed
    except OSError:
        return []  # no /dev/shm: nobody can have a named domain
    return sorted(found, key=lambda place: place.name or "")


def anonymous_places() -> list[Place]:
    """Domains without a name that processes of this user have open, as far as /proc shows them."""
    found: dict[tuple[int, int], list[tuple[int, str]]] = {}
    for pid, path in _descriptors():
        try:
            if not _LINK.fullmatch(os.readlink(path)):
                continue
            status = os.stat(path)
        except OSError:
            continue  # closed or ended meanwhile
        found.setdefault((status.st_dev, status.st_ino), []).append((pid, path))
    return [
        Place(None, min(uses)[1], tuple(sorted({pid for pid, _ in uses})))
        for _, uses in sorted(found.items())
    ]


def _descriptors() -> Iterator[tuple[int, str]]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        folder = f"/proc/{pid}/fd"
        try:
            names = os.listdir(folder)
        except OSError:
            continue  # ended, or another user's
        for name in names:
            yield int(pid), f"{folder}/{name}"


def place_of(which: str | Path | Domain) -> Place:
    """The domain of that name, "@" with the beginning of an anonymous one's uid, path, or Domain object.

    Raises UnknownDomainError, ClosedError, and ValueError for what can't be a name.
    """
    if isinstance(which, str) and which.startswith("@"):
        return _by_uid(which.removeprefix("@"))
    if isinstance(which, Path) or (isinstance(which, str) and "/" in which):
        path = os.fspath(which)
        known = path.startswith(f"{segment.SHM}/{_PREFIX}")
        return Place(path.removeprefix(f"{segment.SHM}/{_PREFIX}") if known else None, path)
    if isinstance(which, str):
        return Place(which, segment.SHM + segment.path_of(which))
    return Place(which.name, f"/proc/self/fd/{which.token()[3]}")


def _by_uid(prefix: str) -> Place:
    if len(prefix) < 4 or not re.fullmatch("[0-9a-f]+", prefix):
        raise ValueError(
            f"an anonymous domain is named by @ and at least 4 digits of its uid, as pylocks ls shows it, "
            f"not '@{prefix}'"
        )
    matching = []
    for place in anonymous_places():
        try:
            fd = place.open()
        except (errors.DomainError, OSError):
            continue
        try:
            found = segment.inspect(fd, place.where)
            if found.key[0].hex().startswith(prefix):
                matching.append(place)
        except (errors.DomainError, OSError):
            continue  # of another version: it can't say who it is
        finally:
            os.close(fd)
    if len(matching) != 1:
        much = "more than one" if matching else "no"
        raise errors.UnknownDomainError(
            errno.ENOENT, f"{much} living process of this user shows an anonymous domain @{prefix}"
        )
    return matching[0]


def flocked(device: int, inode: int) -> bool:
    """A process that this one's pid namespace shows holds a flock on the file: it is attached."""
    wanted = f"{os.major(device):02x}:{os.minor(device):02x}:{inode}"
    try:
        with open("/proc/locks", encoding="ascii", errors="replace") as file:
            return any("FLOCK" in line and wanted in line.split() for line in file)
    except OSError:
        return False
