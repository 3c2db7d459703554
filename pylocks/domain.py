"""Domain: one shared-memory segment with its locks and the threads that use them."""

from __future__ import annotations

import errno
import os
import threading
import weakref
from dataclasses import fields
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pylocks import attach, errors, segment
from pylocks._core import ffi, lib
from pylocks._lock import keep, retire
from pylocks.ops import PROTOCOLS, process
from pylocks.views import Owner, Stats, VCpu

if TYPE_CHECKING:
    from pylocks._core import CData
    from pylocks.locks import TicketLock

__all__ = ["Domain", "Token", "from_token"]

Token = tuple[str, segment.Key, int, int, int]
"""(name or "", key, pid, descriptor, mode): how another process finds a domain."""


PACKED_STRIDE = 32

_open: weakref.WeakValueDictionary[segment.Key, Domain] = weakref.WeakValueDictionary()
_open_lock = threading.RLock()


POLICIES = {"fifo": int(lib.PLK_FIFO), "bounded": int(lib.PLK_BOUNDED)}
"""What the C half calls the policies of locks."""


class Domain:
    """A shared segment of ticket locks.

    Without a name it is anonymous: reached by fork or by pickling a lock of it, and gone with the
    last process that uses it.  With one, unrelated processes of the same user attach it as
    /dev/shm/pylocks.NAME.  There is one Domain object for a domain in a process: asking for it
    again returns the same.

    vcpus: threads that can use it at once; locks: capacity; protocol: "auto", "native" or
    "enlightened"; mode: permissions of a named one.  These count where the domain is created; the
    protocol is compared where it exists.  create=False: UnknownDomainError if it does not exist.

    detect_deadlocks: an acquisition that would wait for ever, for threads that wait for it, raises
    DeadlockError.  The domain's, for all its processes: what another asks for while it is in use must be
    the same, else ValueError; None: whatever it is.  check_order: LockOrderWarning where locks are taken
    in both orders by this process; for handles made from then on.
    """

    name: str | None
    protocol: str
    slow_path: str
    key: segment.Key
    vcpu_limit: int
    lock_limit: int
    mode: int
    is_array: bool
    is_packed: bool
    detects_deadlocks: bool
    checks_order: bool

    def __init_subclass__(cls) -> None:
        raise TypeError("Domain can't be subclassed: there is one object a domain, whoever asks for it")

    def __new__(
        cls,
        name: str | None = None,
        *,
        vcpus: int = 4096,
        locks: int = 65536,
        protocol: str = "auto",
        mode: int = 0o600,
        create: bool = True,
        detect_deadlocks: bool | None = None,
        check_order: bool = False,
    ) -> Domain:
        """Create or attach; any DomainError."""
        made = make(name, mode, create, attach.Request(vcpus, locks, protocol, detects=detect_deadlocks))
        made.checks_order |= check_order
        return made

    # ------------------------------------------------------------ locks

    def lock(self, name: str, create: bool = True) -> TicketLock:
        """The lock of that name, created if it is new; UnknownLockError if create=False."""
        from pylocks.locks import TicketLock

        return TicketLock(name, domain=self, create=create)

    def locks(self) -> tuple[TicketLock, ...]:
        """The named locks."""
        from pylocks.locks import lock_at

        names = self._names()
        return tuple(lock_at(self, i, n) for n, i in names if not self.cell(i).flags & lib.PLK_CELL_SYNC)

    def _names(self) -> list[tuple[str, int]]:
        found = []
        text, length = ffi.new("char[]", int(lib.PLK_NAME_MAX)), ffi.new("uint32_t *")
        with self._guard:
            s = self._live()
            entry = 0
            while (index := lib.plk_name_at(s, entry, text, length)) != -errno.ERANGE:
                if index == -lib.PLK_E_CORRUPT:
                    raise errors.CorruptDomainError(f"{self.describe()}: entry {entry} of its directory")
                if index >= 0:
                    found.append((bytes(ffi.buffer(text, length[0])).decode("utf-8", "replace"), index))
                elif index != -errno.ENOENT:
                    raise segment.refusal(index, ffi.new("struct plk_found *"), self.describe())
                entry += 1
        return found

    def find_cell(self, name: str, create: bool, policy: str | None = None, kind: int = 0) -> int:
        """Index of the named cell; UnknownLockError, DomainFullError, ValueError.

        policy: of a new lock, and what an existing one must have; None: any, and fifo if it is new.
        kind: PLK_RECURSIVE, of a new one.
        """
        raw = segment.encoded(name)
        self.not_an_array()
        with self._guard:
            s = self._live()
            index = int(lib.plk_name_find(s, raw, len(raw), create, POLICIES[policy or "fifo"] | kind))
        if index == -errno.ENOENT:
            known = ", ".join(repr(n) for n, _ in self._names()[:10]) or "none"
            raise errors.UnknownLockError(
                f"{self.describe()} has no lock {name!r} and create=False; it has: {known}"
            )
        index = self._cell(index)
        if policy is not None and policy != (found := self.policy(index)):
            raise ValueError(
                f"lock {name!r} of {self.describe()} exists with policy={found!r}, not {policy!r}"
            )
        return index

    def new_cell(self, policy: str | None = None, kind: int = 0) -> int:
        """Allocate an unnamed cell; DomainFullError, ProtocolMismatchError."""
        self.not_an_array()
        with self._guard:
            s = self._live()
            return self._cell(int(lib.plk_cell_new(s, POLICIES[policy or "fifo"] | kind)))

    def policy(self, index: int) -> str:
        """ "fifo" or "bounded"."""
        return "bounded" if self.cell(index).flags & lib.PLK_CELL_BOUNDED else "fifo"

    def _cell(self, index: int) -> int:
        if index >= 0:
            return index
        if index == -errno.EUSERS:
            raise errors.DomainFullError(
                f"{self.describe()}: no room for another lock (it has {self.lock_limit}, and 4096 names); "
                "create the domain with more: Domain(..., locks=N)"
            )
        if index == -errno.EPROTONOSUPPORT:
            raise errors.ProtocolMismatchError(
                f"{self.describe()} uses the native unlock protocol, under which nobody is ever woken: "
                "a bounded lock needs a domain with protocol='enlightened'"
            )
        raise segment.refusal(index, ffi.new("struct plk_found *"), self.describe())

    def free_cell(self, index: int, forks: int) -> None:
        """Give back an unnamed cell that nobody uses; one in use is kept."""
        with self._guard:
            if not self._closed:
                lib.plk_cell_give_back(self._segment, index, forks)

    def cell(self, index: int) -> CData:
        """A copy of the cell's words."""
        view = ffi.new("struct plk_cell_view *")
        with self._guard:
            s = self._live()
            if lib.plk_cell_view(s, index, view) != 0:
                raise errors.UnknownLockError(f"{self.describe()} has no lock {index}")
        return view

    def owner(self, index: int) -> Owner | None:
        """Who holds the lock; None if nobody does.  May be out of date when it returns."""
        cell = self.cell(index)
        if not cell.owned:
            return None
        view = self._vcpu(cell.owner_vcpu)
        if view is None:
            raise errors.CorruptDomainError(
                f"{self.describe()}: lock {index} is owned by vCPU {cell.owner_vcpu}, which does not exist"
            )
        return Owner(cell.owner_vcpu, view.pid, view.tid, cell.owner_ticket, view.life == lib.PLK_LIFE_ALIVE)

    def _vcpu(self, index: int) -> CData | None:
        view = ffi.new("struct plk_vcpu_view *")
        with self._guard:
            s = self._live()
            return view if lib.plk_vcpu_view(s, index, view) == 0 else None

    def vcpus(self) -> tuple[VCpu, ...]:
        """The threads registered now, the dead whose slots are not yet reused among them."""
        with self._guard:
            s = self._live()
            used = lib.plk_vcpus_used(s)
        views = [view for view in map(self._vcpu, range(used)) if view is not None]
        return tuple(
            VCpu(
                index=v.index,
                pid=v.pid,
                tid=v.tid,
                alive=v.life == lib.PLK_LIFE_ALIVE,
                held=v.held,
                waiting_for=self._wanted(v.pending - 1) if v.pending else None,
                ticket=v.ticket if v.pending and v.ticket != lib.PLK_NO_TICKET else None,
                waiting_since=v.wait_since or None,
                parked=bool(v.parked),
            )
            for v in views
            if v.state == lib.PLK_VCPU_ONLINE
        )

    def _wanted(self, index: int) -> int:
        """The lock that is waited for at this cell: of a bounded one, that may be its queue."""
        view = ffi.new("struct plk_cell_view *")
        with self._guard:
            s = self._live()
            found = lib.plk_cell_view(s, index, view) == 0
        return index - 1 if found and index > 0 and view.flags & lib.PLK_CELL_QUEUE else index

    def stats(self) -> Stats:
        """Sums of the event counters over all vCPUs."""
        sums = dict.fromkeys((f.name for f in fields(Stats)), 0)
        names = [ffi.string(lib.plk_event_name(e)).decode() for e in range(lib.plk_event_count())]
        with self._guard:
            s = self._live()
            used = lib.plk_vcpus_used(s)
        for view in map(self._vcpu, range(used)):
            for event, name in enumerate(names):
                sums[name] += view.events[event] if view is not None else 0
        return Stats(**sums)

    # ------------------------------------------------------------ life

    @property
    def closed(self) -> bool:
        """True once close() has been called in this process."""
        return self._closed

    @property
    def uid(self) -> bytes:
        """A random number that tells this domain from any other."""
        return self.key[0]

    @property
    def address(self) -> int:
        """Where <pylocks.h> finds this domain: a struct plk_domain; ClosedError."""
        with self._guard:
            s = self._live()
            return int(lib.plk_segment_address(s))

    def recover(self) -> int:
        """Recover what threads that have died held here, and free their slots; how many there were.

        Waiters and newcomers do the same of their own accord; this is for a program that wants it
        done now, with nobody waiting.  Raises ClosedError, or DomainError if the domain's mutex is
        not to be had.
        """
        with self._guard:
            found = lib.plk_recover(self._live())
            if found >= 0 and (nodes := lib.plk_sync_recover(self._segment)) < 0:
                found = nodes
        if found < 0:
            raise segment.refusal(found, ffi.new("struct plk_found *"), self.describe())
        return int(found)

    def close(self) -> None:
        """Stop using the domain in this process; other processes go on.

        Raises DomainBusyError if a thread of this process holds or waits for a lock of it.  Its
        locks here raise ClosedError from now on.  Again: nothing.
        """
        with self._guard:
            if self._closed:
                return
            if retire(lib.plk_segment_address(self._segment)) != 0:
                raise errors.DomainBusyError(
                    f"{self.describe()} can't be closed: a thread of this process holds or waits "
                    "for one of its locks; release it first"
                )
            self._closed = True  # and passed over by _attached from now on
            lib.plk_segment_put(self._segment)

    def unlink(self) -> None:
        """Remove a named domain's name: it goes when the last process closes it or ends.

        Raises ValueError for an anonymous domain, UnknownDomainError if the name is gone already.
        """
        if self.name is None:
            raise ValueError("an anonymous domain has no name to remove")
        segment.unlink(self.name, self.key)

    def token(self) -> Token:
        """What another process needs to attach this domain; ClosedError."""
        with self._guard:
            s = self._live()
            return (self.name or "", self.key, os.getpid(), lib.plk_segment_fd(s), self.mode)

    def __enter__(self) -> Domain:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return from_token, (self.token(),)

    def __repr__(self) -> str:
        state = "closed" if self._closed else f"{self.protocol}, {self.slow_path}"
        return f"<pylocks.Domain {self.name or 'anonymous'} {self.key[0].hex()[:8]}: {state}>"

    # ------------------------------------------------------------ inside

    _holder: object
    """Frees the segment with this object, that is, when no lock handle is left either."""
    _segment: CData
    _guard: threading.RLock
    _closed: bool

    def not_an_array(self) -> None:
        """ValueError if the domain is a LockArray, whose locks are all there already."""
        if self.is_array:
            raise ValueError(f"{self.describe()} is a LockArray: its locks have indices, not names")

    def describe(self) -> str:
        """For messages."""
        return f"domain {self.name!r}" if self.name else f"the anonymous domain {self.key[0].hex()[:8]}"

    def describe_lock(self, index: int) -> str:
        """For messages: the lock's name if it has one and nobody is busy with the domain, else its index.

        Never waits: the caller may hold a lock for which whoever has _guard is waiting.
        """
        if self._closed or self.is_array or not self._guard.acquire(blocking=False):
            return str(index)
        try:
            return next((repr(name) for name, cell in self._names() if cell == index), str(index))
        finally:
            self._guard.release()

    def describe_holder(self, index: int) -> str:
        """For messages: who holds the lock.  Never waits, as describe_lock."""
        if not self._guard.acquire(blocking=False):
            return "somebody else may hold it"
        try:
            owner = self.owner(index)
        except errors.DomainError as error:
            return str(error)
        finally:
            self._guard.release()
        if owner is None:
            return "nobody holds it"
        return f"it is held by thread {owner.tid} of process {owner.pid}"

    def _live(self) -> CData:
        """The open segment; ClosedError.  With _guard held, as long as it is used."""
        if self._closed:
            raise errors.ClosedError(f"{self.describe()} was closed in this process")
        return self._segment


def _after_fork() -> None:
    """The child's only thread holds no lock of the parent's other threads."""
    global _open_lock
    _open_lock = threading.RLock()
    for domain in list(_open.values()):
        domain._guard = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


def make(name: str | None, mode: int, create: bool, request: attach.Request) -> Domain:
    """Create or attach a domain; as Domain(), which can't make arrays."""
    if request.protocol not in ("auto", *PROTOCOLS):
        known = ", ".join(map(repr, PROTOCOLS))
        raise ValueError(f"protocol is 'auto', {known}, not {request.protocol!r}")
    limits = (
        ("vcpus", request.vcpus, lib.PLK_MAX_VCPUS),
        ("locks", request.locks, lib.PLK_MAX_CELLS),
    )
    for what, value, most in limits:
        if not 1 <= value <= most:
            raise ValueError(f"{what} is 1 to {most}, not {value}")
    if mode & ~0o666 or mode & 0o600 != 0o600:
        raise ValueError(f"mode must let its owner read and write and is at most 0o666, not {mode:#o}")
    with _open_lock:
        if name is None:
            return _adopt(attach.anonymous(request))
        done = attach.named(name, mode, create, request, _attached)
        return done if isinstance(done, Domain) else _adopt(done)


def _attached(key: segment.Key) -> Domain | None:
    """The domain if this process has it open."""
    domain = _open.get(key)
    return None if domain is None or domain._closed else domain


def _adopt(made: attach.Attached) -> Domain:
    """The Domain object of a freshly mapped segment."""
    domain = object.__new__(Domain)
    domain.name, domain.key, domain.mode = made.name, made.found.key, made.mode
    domain.protocol, domain.slow_path = made.decision.protocol, made.decision.slow_path
    domain.vcpu_limit, domain.lock_limit = made.found.vcpus, made.found.cells
    domain.is_array, domain.is_packed = made.found.array, made.found.stride == PACKED_STRIDE
    domain.detects_deadlocks, domain.checks_order = made.found.detects, False
    domain._holder, domain._segment = keep(made.holder), made.holder[0]
    domain._guard, domain._closed = threading.RLock(), False
    process.tune(domain._segment)
    process.look_for_monitor()
    _open[domain.key] = domain
    return domain


def from_token(token: Token) -> Domain:
    """The domain that another process (or this one) named by Domain.token(); DomainGoneError."""
    name, key, pid, fd, mode = token
    with _open_lock:
        known = _attached(key)
        if known is not None:
            return known
        if not name:
            return _adopt(attach.by_descriptor(key, pid, fd))
        gone = f"domain {name!r} {key[0].hex()[:8]} is gone: "
        try:
            domain = make(name, mode, False, attach.Request(1, 1, "auto"))
        except errors.UnknownDomainError:
            raise errors.DomainGoneError(gone + "its name has been removed") from None
        if domain.key != key:
            raise errors.DomainGoneError(gone + "another one has been created under its name")
        return domain
