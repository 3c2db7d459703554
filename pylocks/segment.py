"""Finding, making and checking the shared segment behind a domain.

Named segments live in POSIX shared memory under "/pylocks.NAME".  Every attached process holds a
shared flock on the segment for as long as it lives, which the kernel drops however it dies; an
exclusive one can therefore be had only while nobody is attached, and is what makes creation,
repair of a half-made segment and reset of an abandoned one safe against each other.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import posix_ipc

from pylocks import errors
from pylocks._core import ffi, lib
from pylocks.ops import BARRIER_NAMES, PROTOCOL_NAMES

if TYPE_CHECKING:
    from pylocks._core import CData

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
PREFIX = "/pylocks."
MFD_NOEXEC_SEAL = 0x8
CHANNELS, TOMBSTONES = 4096, 8192
"""Event channels and places for abandoned tickets in a new segment; powers of two."""
SHM = "/dev/shm"  # where the C library keeps POSIX shared memory
# A creator needs milliseconds; one that takes longer is stopped, and the user should know.
CREATOR_PATIENCE_S = 5.0


Key = tuple[bytes, int, int]
"""(random number in the header, device, inode): a copied file is not the same domain."""


@dataclass(frozen=True)
class Found:
    """What a segment is and what its header says of it."""

    key: Key
    protocol: str
    barrier: str
    slow_path: str
    vcpus: int
    cells: int
    stride: int
    array: bool
    detects: bool
    creator_pid: int


def path_of(name: str) -> str:
    """The POSIX shared-memory name of a domain; ValueError for a name that can't be one."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(
            f"a domain's name is 1 to 100 letters, digits, dots, dashes or underscores and begins "
            f"with a letter or digit, not {name!r}"
        )
    return PREFIX + name


def encoded(name: str) -> bytes:
    """What the directory of a domain knows a lock's name as; TypeError, ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"a lock's name is a str, not {type(name).__name__}: {name!r}")
    raw = name.encode()
    if not raw or len(raw) > lib.PLK_NAME_MAX:
        raise ValueError(f"a lock's name is 1 to {lib.PLK_NAME_MAX} bytes of UTF-8, not {len(raw)}: {name!r}")
    return raw


def refusal(code: int, raw: CData, where: str) -> Exception:
    """The exception for a negative return of plk_inspect, plk_attach or plk_format."""
    code = -code
    age = f"created by process {raw.creator_pid}"
    if code == lib.PLK_E_FOREIGN:
        return errors.ForeignFileError(
            f"{where} is not a pylocks segment (it begins with {raw.magic:#018x}); "
            "it is left untouched: use another name, or remove it if it is yours"
        )
    if code == lib.PLK_E_UNFINISHED:
        return errors.ForeignFileError(f"{where} is empty or was never finished by its creator")
    if code == lib.PLK_E_TRUNCATED:
        return errors.TruncatedDomainError(
            f"{where} is {raw.size} bytes long, but should have {raw.expected_size}: "
            "something has cut or extended it; remove it and start the programs that use it anew"
        )
    if code == lib.PLK_E_ABI:
        return errors.AbiMismatchError(
            f"{where} has layout version {raw.abi}, this pylocks has {raw.expected_abi} "
            "(or its C library has other mutexes): let all its programs use one pylocks"
        )
    if code == lib.PLK_E_BOOT:
        return errors.StaleDomainError(f"{where} is from before the machine's last start ({age})")
    if code == lib.PLK_E_CORRUPT:
        return errors.CorruptDomainError(
            f"{where} has an impossible header ({age}): it was overwritten; remove it"
        )
    if code == errno.ETIMEDOUT:
        return errors.DomainError(
            f"{where}: its mutex has been held for seconds by a process that is stopped or debugged; "
            "let that one go on, or kill it"
        )
    if code == errno.ENOTRECOVERABLE:
        return errors.CorruptDomainError(f"{where}: its mutex was overwritten; remove it")
    if code == errno.ENOSPC:
        return errors.DomainFullError(
            f"no memory is left for {where}: free some in /dev/shm or raise its limit"
        )
    if code in (errno.ENOSYS, errno.ENOTSUP):
        return errors.DomainError(
            f"{where} can't be made: this kernel, sandbox or emulator has no robust futexes, by which the "
            "living hear of the dead"
        )
    if code == errno.EMFILE:
        return errors.DomainFullError(
            f"{where}: this process has {lib.PLK_MAX_DOMAINS} domains attached already; close some and "
            "let go of their locks"
        )
    return OSError(code, f"{os.strerror(code)}: {where}")


def inspect(fd: int, where: str) -> Found:
    """What the segment's header says; raises the matching error if it can't be trusted."""
    raw = ffi.new("struct plk_found *")
    rc = lib.plk_inspect(fd, raw)
    if rc != 0:
        raise refusal(rc, raw, where)
    return _found(fd, raw)


def _found(fd: int, raw: CData) -> Found:
    return Found(
        key=(bytes(raw.uid), *_identity(fd)),
        protocol=PROTOCOL_NAMES[raw.protocol],
        barrier=BARRIER_NAMES[raw.barrier],
        slow_path=ffi.string(raw.slow_path).decode("ascii", "replace"),
        vcpus=raw.vcpus,
        cells=raw.cells,
        stride=raw.stride,
        array=bool(raw.array),
        detects=bool(raw.detects),
        creator_pid=raw.creator_pid,
    )


def make_format(
    *,
    protocol: int,
    barrier: int,
    slow_path: str,
    vcpus: int,
    cells: int,
    array: bool,
    packed: bool,
    detects: bool,
) -> CData:
    """The parameters of a new segment."""
    made = ffi.new("struct plk_format *")
    made.vcpus, made.cells, made.stride = vcpus, cells, 32 if packed else 64
    made.channels, made.tombs = CHANNELS, TOMBSTONES
    made.entries = 0 if array else 4096
    made.protocol, made.barrier, made.array, made.detects = protocol, barrier, array, detects
    made.slow_path = slow_path.encode()[:15]
    return made


def format_fd(fd: int, form: CData, where: str) -> None:
    """Make the file behind fd a segment; nobody else may be looking at it."""
    rc = lib.plk_format(fd, form)
    if rc != 0:
        raise refusal(rc, ffi.new("struct plk_found *"), where)


def attach_fd(fd: int, where: str) -> tuple[CData, Found]:
    """Map and validate; the mapping has a descriptor of its own, which shares fd's flock.

    Returns a struct plk_segment ** that lets go of the segment when it is collected.
    """
    raw = ffi.new("struct plk_found *")
    holder = ffi.gc(ffi.new("struct plk_segment **"), lib.plk_segment_discard)
    try:
        mine = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 0)
    except OSError as error:
        raise not_opened(where, error) from None
    rc = lib.plk_attach(mine, holder, raw)
    if rc != 0:
        os.close(mine)
        raise refusal(rc, raw, where)
    return holder, _found(fd, raw)


def not_opened(where: str, error: Exception) -> OSError:
    """An error that says which segment could not be opened."""
    code = error.errno if isinstance(error, OSError) and error.errno else errno.EMFILE
    if isinstance(error, posix_ipc.ExistentialError):
        code = errno.ENOENT  # no /dev/shm
    advice = "; close some descriptors or raise the limit (ulimit -n)" if code == errno.EMFILE else ""
    return OSError(code, f"{where} can't be opened: {os.strerror(code)}{advice}")


def placed(error: BaseException, where: str) -> BaseException:
    """The error, or one like it that says which segment the system call was about."""
    if type(error).__module__ == errors.__name__ or not isinstance(error, OSError) or where in str(error):
        return error
    return OSError(error.errno, f"{where} can't be used: {error.strerror}")


def open_anonymous() -> int:
    """A descriptor of memory without a name, which goes when its last user does."""
    for flags in (MFD_NOEXEC_SEAL, 0):  # kernels before 6.3 do not know the flag
        try:
            return os.memfd_create("pylocks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | flags)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EACCES):
                raise not_opened("an anonymous domain", error) from None
    # An old kernel or a sandbox: a name that is gone before anybody could see it.
    path = PREFIX + secrets.token_hex(16)
    try:
        shm = posix_ipc.SharedMemory(path, posix_ipc.O_CREX, mode=0o600)
    except (OSError, posix_ipc.Error) as error:
        raise not_opened("an anonymous domain", error) from None
    posix_ipc.unlink_shared_memory(path)
    return int(shm.fd)


def seal(fd: int) -> None:
    """Forbid that anybody changes the size, which could fault those who have it mapped."""
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):  # no memfd: the fallback of open_anonymous
            raise


class Named:
    """A named segment's file, opened and locked against other creators as far as need be."""

    def __init__(self, name: str, mode: int, create: bool) -> None:
        """Open "/pylocks.NAME"; UnknownDomainError, DomainPermissionError, ForeignFileError."""
        self.path = path_of(name)
        self.where = f"domain {name!r} (/dev/shm{self.path})"
        self.mode = mode
        self.create = create
        self.made = False  # this call has made it
        deadline = time.monotonic() + CREATOR_PATIENCE_S
        while True:
            self.fd = self._open()
            try:
                self._check_owner()
                self.alone = self._lock(deadline)
                if os.fstat(self.fd).st_nlink > 0:
                    return
            except BaseException as error:
                os.close(self.fd)
                raise placed(error, self.where) from None
            os.close(self.fd)  # unlinked, or given up by its creator, while we waited

    def _open(self) -> int:
        try:
            return self._open_or_make()
        except posix_ipc.ExistentialError:
            raise errors.UnknownDomainError(
                errno.ENOENT, f"there is no {self.where}, and create=False"
            ) from None
        except posix_ipc.PermissionsError:
            raise errors.DomainPermissionError(
                errno.EACCES, f"{self.where} belongs to somebody else: its mode does not let this user in"
            ) from None
        except (OSError, ValueError, posix_ipc.Error) as error:
            raise self._not_opened(error) from None

    def _open_or_make(self) -> int:
        """Never O_CREAT on what exists: of another user's file the kernel may refuse that."""
        while True:
            try:
                return int(posix_ipc.SharedMemory(self.path).fd)
            except posix_ipc.ExistentialError:
                if not self.create:
                    raise
            try:
                return int(posix_ipc.SharedMemory(self.path, posix_ipc.O_CREX, mode=self.mode).fd)
            except posix_ipc.ExistentialError:
                if not os.path.isdir(SHM):
                    raise errors.DomainError(
                        f"{self.where} can't be made: there is no {SHM} here; mount a tmpfs there"
                    ) from None
                # else somebody was quicker

    def _not_opened(self, error: Exception) -> Exception:
        """What it means that shm_open failed; posix_ipc does not always say."""
        if os.path.lexists(SHM + self.path) and not os.path.isfile(SHM + self.path):
            return errors.ForeignFileError(f"{self.where} is not a regular file; it is left as it is")
        if os.path.islink(SHM + self.path):
            return errors.ForeignFileError(f"{self.where} is a symbolic link, which is not followed")
        if isinstance(error, OSError) and error.errno == errno.EROFS:
            return errors.DomainPermissionError(
                errno.EROFS, f"{self.where} can't be opened for writing: {SHM} is mounted read-only"
            )
        return not_opened(self.where, error)

    def _check_owner(self) -> None:
        found = os.fstat(self.fd)
        if not stat.S_ISREG(found.st_mode):
            raise errors.ForeignFileError(f"{self.where} is not a regular file; it is left as it is")
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid != os.geteuid() and not self.mode & 0o077:
            raise errors.DomainPermissionError(
                errno.EACCES,
                f"{self.where} belongs to user {found.st_uid}, not to user {os.geteuid()}; to share a "
                "domain with others, all must ask for it with a mode that lets them in",
            )
        raw = ffi.new("struct plk_found *")
        rc = lib.plk_inspect(self.fd, raw)
        if rc == -lib.PLK_E_FOREIGN:
            raise refusal(rc, raw, self.where)  # rather than of the mode, which is then its own affair
        if found.st_size == 0 and found.st_uid == os.geteuid():
            os.fchmod(self.fd, self.mode)  # new, so the umask has had its way with it
        elif mode != self.mode:
            raise errors.DomainPermissionError(
                errno.EACCES, f"{self.where} has mode {mode:#o}, not the expected {self.mode:#o}"
            )

    def _lock(self, deadline: float) -> bool:
        """True: exclusively, nobody is attached.  False: shared, and the segment is finished."""
        while time.monotonic() < deadline:
            if self._flock(fcntl.LOCK_EX):
                return True
            if self._flock(fcntl.LOCK_SH):
                if not self.unfinished():
                    return False
                fcntl.flock(self.fd, fcntl.LOCK_UN)  # its creator died: somebody must be alone with it
            time.sleep(0.001)
        raise errors.DomainError(
            f"{self.where} has been half made for {CREATOR_PATIENCE_S:g} s by a process that is stopped, "
            "or whose children have inherited it: end them, or remove the file"
        )

    def _flock(self, how: int) -> bool:
        try:
            fcntl.flock(self.fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def unfinished(self) -> bool:
        """Empty, or its creator died while formatting it."""
        raw = ffi.new("struct plk_found *")
        return bool(lib.plk_inspect(self.fd, raw) == -lib.PLK_E_UNFINISHED)

    def settle(self) -> None:
        """From alone to attached."""
        fcntl.flock(self.fd, fcntl.LOCK_SH)

    def unlink(self) -> None:
        """Remove the name, if it is still this file's."""
        if os.fstat(self.fd).st_nlink > 0:
            posix_ipc.unlink_shared_memory(self.path)


def _identity(fd: int) -> tuple[int, int]:
    """Which file it is, whatever its name."""
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def unlink(name: str, key: Key) -> None:
    """Remove a domain's name; UnknownDomainError if that file does not have it any more."""
    path = path_of(name)
    try:
        now = posix_ipc.SharedMemory(path)
        try:
            if _identity(now.fd) != key[1:]:
                raise posix_ipc.ExistentialError
        finally:
            now.close_fd()
        posix_ipc.unlink_shared_memory(path)
    except posix_ipc.ExistentialError:
        raise errors.UnknownDomainError(
            errno.ENOENT,
            f"the name of this domain {name!r} (/dev/shm{path}) has been removed already",
        ) from None
