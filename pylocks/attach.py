"""Creating and attaching segments: what happens between a name, or a token, and a mapping."""

from __future__ import annotations

import errno
import os
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pylocks import errors, segment
from pylocks._core import ffi, lib
from pylocks.ops import BARRIERS, PROTOCOLS, Decision, Traits, process

if TYPE_CHECKING:
    from pylocks._core import CData

T = TypeVar("T")


@dataclass(frozen=True)
class Request:
    """What a new segment should be, and which protocol is asked of an old one."""

    vcpus: int
    locks: int
    protocol: str
    array: bool = False
    packed: bool = False
    detects: bool | None = None
    """None: as the segment does; a new one does not."""

    def format(self, fd: int, decision: Decision, where: str) -> None:
        """Make the file behind fd such a segment."""
        form = segment.make_format(
            protocol=PROTOCOLS[decision.protocol],
            barrier=BARRIERS[decision.barrier],
            slow_path=decision.slow_path,
            vcpus=self.vcpus,
            cells=self.locks,
            array=self.array,
            packed=self.packed,
            detects=bool(self.detects),
        )
        segment.format_fd(fd, form, where)

    def agree(self, found: segment.Found, where: str) -> None:
        """ValueError if something else is asked of the segment than it is."""
        if self.detects is not None and self.detects != found.detects:
            raise ValueError(
                f"{where} exists with detect_deadlocks={found.detects}, not {self.detects}, "
                "and is in use: let all its programs ask for one of the two"
            )


@dataclass(frozen=True)
class Attached:
    """A freshly mapped segment."""

    name: str | None
    mode: int
    holder: CData
    found: segment.Found
    decision: Decision


def anonymous(request: Request) -> Attached:
    """A new segment without a name."""
    where = "an anonymous domain"
    decision = process.start(request.protocol, None, where)
    fd = segment.open_anonymous()
    try:
        request.format(fd, decision, where)
        segment.seal(fd)
        holder, found = segment.attach_fd(fd, where)
    finally:
        os.close(fd)
    return Attached(None, 0o600, holder, found, decision)


def named(
    name: str, mode: int, create: bool, request: Request, known: Callable[[segment.Key], T | None]
) -> Attached | T:
    """The segment of that name, made if need be; `known` finds what this process has attached."""
    while True:
        opened = segment.Named(name, mode, create)
        try:
            done = _alone(opened, name, request) if opened.alone else _joined(opened, name, request, known)
        except BaseException as error:
            if opened.alone and (opened.made or opened.unfinished()):
                opened.unlink()  # made just now and for nothing; whoever waits for it starts over
            raise segment.placed(error, opened.where) from None
        finally:
            os.close(opened.fd)
        if done is not None:
            return done


def _traits(found: segment.Found) -> Traits:
    return Traits(found.protocol, found.barrier, found.slow_path)


def _joined(
    opened: segment.Named, name: str, request: Request, known: Callable[[segment.Key], T | None]
) -> Attached | T:
    """Others are attached, or this process is."""
    found = segment.inspect(opened.fd, opened.where)
    decision = process.start(request.protocol, _traits(found), opened.where)
    request.agree(found, opened.where)
    before = known(found.key)
    if before is not None:
        return before
    holder, found = segment.attach_fd(opened.fd, opened.where)
    return Attached(name, opened.mode, holder, found, decision)


def _alone(opened: segment.Named, name: str, request: Request) -> Attached | None:
    """Nobody is attached and nobody can be: make, repair or reset.  None: start over."""
    if opened.unfinished():
        if not opened.create:
            raise errors.UnknownDomainError(
                errno.ENOENT, f"{opened.where} was never finished by its creator, and create=False"
            )
        decision = process.start(request.protocol, None, opened.where)
        opened.made = True
        detects = bool(request.detects)
        request.format(opened.fd, decision, opened.where)
        holder, found = segment.attach_fd(opened.fd, opened.where)
    else:
        try:
            found = segment.inspect(opened.fd, opened.where)
        except errors.StaleDomainError:
            if not opened.create:
                raise
            opened.unlink()
            return None
        # Its former users are gone, so it need not keep their protocol.
        decision = process.start(request.protocol, None, opened.where)
        holder, found = segment.attach_fd(opened.fd, opened.where)
        detects = found.detects if request.detects is None else request.detects
        orphans = lib.plk_reset(holder[0], PROTOCOLS[decision.protocol], BARRIERS[decision.barrier], detects)
        if orphans < 0:
            raise segment.refusal(orphans, ffi.new("struct plk_found *"), opened.where)
        if orphans:
            warnings.warn(
                f"{opened.where}: {orphans} of its locks were held by processes that have all died since; "
                "they are free again, but what they protect may be half-done",
                errors.OwnerDiedWarning,
                stacklevel=errors.callers_level(),
            )
    opened.settle()
    # flock gives up the exclusive lock before it takes the shared one; somebody
    # may have been alone in between, and have reset what we have just attached.
    now = segment.inspect(opened.fd, opened.where)
    if (now.protocol, now.barrier, now.detects) != (decision.protocol, decision.barrier, detects):
        return None
    request.agree(now, opened.where)
    return Attached(name, opened.mode, holder, now, decision)


def by_descriptor(key: segment.Key, pid: int, fd: int) -> Attached:
    """The anonymous segment behind another process's descriptor; DomainGoneError."""
    where = f"the anonymous domain {key[0].hex()[:8]} of process {pid}"
    path = f"/proc/{pid}/fd/{fd}"
    gone = errors.DomainGoneError(
        f"{where} can't be reached: that process has ended or has closed it. An anonymous lock can "
        "be unpickled only while the process that pickled it lives; use a named one otherwise."
    )
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise gone
        mine = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        raise gone from None
    except PermissionError:
        raise errors.DomainPermissionError(
            errno.EACCES, f"{where} can't be reached: that process belongs to another user"
        ) from None
    except OSError as error:
        raise segment.not_opened(where, error) from None
    try:
        found = segment.inspect(mine, where)
        if found.key != key:
            raise gone
        decision = process.start("auto", _traits(found), where)
        holder, found = segment.attach_fd(mine, where)
    except errors.ForeignFileError:
        raise gone from None
    finally:
        os.close(mine)
    return Attached(None, 0o600, holder, found, decision)
