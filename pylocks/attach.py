"""Creating and attaching segments: what happens between a name, or a token, and a mapping."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from pylocks import errors, segment
from pylocks._core import lib
from pylocks.ops import PROTOCOLS, Decision, process

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

    def format(self, fd: int, decision: Decision, where: str) -> None:
        """Make the file behind fd such a segment."""
        form = segment.make_format(
            protocol=PROTOCOLS[decision.protocol],
            slow_path=decision.slow_path,
            vcpus=self.vcpus,
            cells=self.locks,
            array=self.array,
            packed=self.packed,
        )
        segment.format_fd(fd, form, where)


@dataclass(frozen=True)
class Attached:
    """A freshly mapped segment."""

    name: str | None
    mode: int
    raw: CData
    found: segment.Found
    decision: Decision


def anonymous(request: Request) -> Attached:
    """A new segment without a name."""
    where = "an anonymous domain"
    decision = process.start(request.protocol, None, where, None)
    fd = segment.open_anonymous()
    try:
        request.format(fd, decision, where)
        segment.seal(fd)
        raw, found = segment.attach_fd(fd, where)
    except BaseException:
        os.close(fd)
        raise
    return Attached(None, 0o600, raw, found, decision)


def named(
    name: str, mode: int, create: bool, request: Request, known: Callable[[bytes], T | None]
) -> Attached | T:
    """The segment of that name, made if need be; `known` finds what this process has attached."""
    while True:
        opened = segment.Named(name, mode, create)
        try:
            done = _alone(opened, name, request) if opened.alone else _joined(opened, name, request, known)
        except BaseException:
            os.close(opened.fd)
            raise
        if not isinstance(done, Attached):
            os.close(opened.fd)  # attached here before, or stale and removed
        if done is not None:
            return done


def _joined(
    opened: segment.Named, name: str, request: Request, known: Callable[[bytes], T | None]
) -> Attached | T:
    """Others are attached, or this process is."""
    found = segment.inspect(opened.fd, opened.where)
    decision = process.start(request.protocol, found.protocol, opened.where, found.slow_path)
    before = known(found.uid)
    if before is not None:
        return before
    raw, found = segment.attach_fd(opened.fd, opened.where)
    return Attached(name, opened.mode, raw, found, decision)


def _alone(opened: segment.Named, name: str, request: Request) -> Attached | None:
    """Nobody is attached and nobody can be: make, repair or reset.  None: removed as stale."""
    if opened.unfinished():
        if not opened.create:
            raise errors.UnknownDomainError(
                errno.ENOENT, f"{opened.where} was never finished by its creator, and create=False"
            )
        decision = process.start(request.protocol, None, opened.where, None)
        request.format(opened.fd, decision, opened.where)
        raw, found = segment.attach_fd(opened.fd, opened.where)
    else:
        try:
            found = segment.inspect(opened.fd, opened.where)
        except errors.StaleDomainError:
            if not opened.create:
                raise
            opened.unlink()
            return None
        # Its former users are gone, so it need not keep their protocol.
        decision = process.start(request.protocol, None, opened.where, found.slow_path)
        raw, found = segment.attach_fd(opened.fd, opened.where)
        lib.plk_reset(raw, PROTOCOLS[decision.protocol])
    opened.settle()
    return Attached(name, opened.mode, raw, found, decision)


def by_descriptor(uid: bytes, pid: int, fd: int) -> Attached:
    """The anonymous segment behind another process's descriptor; DomainGoneError."""
    where = f"the anonymous domain {uid.hex()[:8]} of process {pid}"
    path = f"/proc/{pid}/fd/{fd}"
    gone = errors.DomainGoneError(
        f"{where} can't be reached: that process has ended or has closed it. An anonymous lock can "
        "be unpickled only while the process that pickled it lives; use a named one otherwise."
    )
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise gone
        mine = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        raise gone from None
    try:
        if segment.inspect(mine, where).uid != uid:
            raise gone
        raw, found = segment.attach_fd(mine, where)
    except errors.ForeignFileError:
        os.close(mine)
        raise gone from None
    except BaseException:
        os.close(mine)
        raise
    try:
        decision = process.start("auto", found.protocol, where, found.slow_path)
    except BaseException:
        lib.plk_segment_put(raw)
        lib.plk_segment_release(raw)
        raise
    return Attached(None, 0o600, raw, found, decision)
