"""TicketLock and LockArray."""

from __future__ import annotations

import operator
import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, SupportsIndex

from pylocks import errors
from pylocks._core import lib
from pylocks._lock import Array, Lock, OrderedLock, RecursiveLock, Within
from pylocks.attach import Request
from pylocks.domain import POLICIES, Domain, Token, from_token, make
from pylocks.views import Owner

if TYPE_CHECKING:
    from pylocks.aio import Aio

__all__ = ["LockArray", "TicketLock", "TicketRLock"]

ON_OWNER_DEATH = ("warn", "raise")
# Sparse, so room costs nothing; one that was ever shared keeps its cell until the domain goes.
DEFAULT_LOCKS = 1 << 20

_aio: list[type[Aio]] = []  # not before it is asked for: it takes asyncio
_default: Domain | None = None
_default_lock = threading.RLock()  # a signal handler may come this way, too


def _after_fork() -> None:
    global _default_lock
    _default_lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork)


def _default_domain() -> Domain:
    """The anonymous domain of this process and the processes forked from it."""
    global _default
    with _default_lock:
        if _default is None or _default.closed:
            made = Domain(locks=DEFAULT_LOCKS)
            if _default is None or _default.closed:  # else a signal handler was quicker
                _default = made
        return _default


def user_domain(create: bool = True) -> Domain:
    """The named domain in which TicketLock(name) looks: one a user."""
    return Domain(f"user.{os.geteuid()}", create=create)


def domain_for(name: str | None, domain: Domain | None, create: bool = True) -> Domain:
    """The one given, or where what has that name, or none, lies."""
    if domain is not None:
        return domain
    return _default_domain() if name is None else _domain_for_name(name, create)


def _refuses(on_owner_death: str) -> bool:
    """Whether the C side is to refuse; ValueError."""
    if on_owner_death not in ON_OWNER_DEATH:
        known = ", ".join(map(repr, ON_OWNER_DEATH))
        raise ValueError(f"on_owner_death is {known}, not {on_owner_death!r}")
    return on_owner_death == "raise"


def lock_at(domain: Domain, index: int, name: str | None = None, on_owner_death: str = "warn") -> TicketLock:
    """A handle of an existing cell; UnknownLockError, ClosedError."""
    if not 0 <= index < domain.lock_limit:
        raise errors.UnknownLockError(f"{domain.describe()} has no lock {index}")
    # In an array none is, and a cell has no memory before it is used.
    recursive = not domain.is_array and domain.cell(index).flags & lib.PLK_CELL_RECURSIVE
    kind = _kind(TicketRLock if recursive else TicketLock, domain)
    lock: TicketLock = Lock.__new__(kind, domain, domain.address, index, _refuses(on_owner_death))
    lock.name, lock.on_owner_death = name, on_owner_death
    lock._private = None
    return lock


class TicketLock(Lock):
    """A first-come-first-served lock between threads and processes.

    TicketLock() is anonymous: share it by fork, or pass it to any process of this user while the
    process that pickles it lives.  TicketLock("orders") is the same lock in every process of this
    user; with `domain` it is looked for there, and with create=False UnknownLockError is raised if
    it does not exist.  policy: "fifo", strict ticket order; "bounded", where whoever comes while the
    lock is free may have it, but no waiter is passed by for long: one of them, in order of arrival, is
    let in every 200 us.  None: that of the lock if it exists, "fifo" if it is new.

    If a thread dies while it holds the lock, however it dies, the next in line gets it, and
    owner_died is True until somebody who holds it calls mark_consistent().  on_owner_death says how
    acquirers through this handle hear of it: "warn", each by an OwnerDiedWarning; "raise", by an
    OwnerDiedError instead of the lock, except in `with lock.repair():`.

    Costs no call and no system call while it is free.  Not recursive.  An anonymous lock that was
    never pickled and never seen a fork gives its memory back when it is collected; any other keeps
    its 64 bytes as long as its domain lives, so make those that come and go in a Domain of their own.
    """

    __slots__ = ("_private", "name", "on_owner_death")

    name: str | None
    on_owner_death: str
    _private: int | None

    def __new__(
        cls,
        name: str | None = None,
        *,
        domain: Domain | None = None,
        create: bool = True,
        policy: str | None = None,
        on_owner_death: str = "warn",
    ) -> TicketLock:
        """See the class; also any DomainError of attaching."""
        if policy is not None and policy not in POLICIES:
            raise ValueError(f"policy is {', '.join(map(repr, POLICIES))}, not {policy!r}")
        refuses = _refuses(on_owner_death)
        if name is None and not create:
            raise ValueError("create=False needs the name of a lock")
        domain = domain_for(name, domain, create)
        extra = lib.PLK_RECURSIVE if issubclass(cls, TicketRLock) else 0
        if name is None:
            index = domain.new_cell(policy, extra)
        else:
            index = domain.find_cell(name, create, policy, extra)
            flags = domain.cell(index).flags
            if bool(flags & lib.PLK_CELL_RECURSIVE) != bool(extra) and not flags & lib.PLK_CELL_SYNC:
                is_one = "not recursive: a TicketLock" if extra else "a TicketRLock"
                raise errors.WrongKindError(f"lock {name!r} of {domain.describe()} exists and is {is_one}")
        lock = super().__new__(_kind(cls, domain), domain, domain.address, index, refuses)
        lock.name, lock.on_owner_death = name, on_owner_death
        lock._private = lib.plk_forks_seen() if name is None else None
        return lock

    def within(self, seconds: float) -> Within:
        """`with lock.within(0.5):` raises TimeoutError rather than enter without the lock."""
        return Within(self, seconds)

    def repair(self, timeout: float | None = None) -> Within:
        """`with lock.repair():` enters even if a holder died, silently, to put things in order.

        If the block ends without an exception, the lock is marked consistent.  timeout: seconds,
        after which TimeoutError is raised; None, for ever.
        """
        return Within(self, timeout, True)

    @property
    def aio(self) -> Aio:
        """The same lock for the tasks of event loops: `async with lock.aio:`."""
        if not _aio:
            from pylocks import aio

            _aio.append(aio.Aio)
        return _aio[0](self)

    @property
    def policy(self) -> str:
        """ "fifo" or "bounded"."""
        return self.domain.policy(self.index)

    @property
    def owner(self) -> Owner | None:
        """Who holds the lock, None if nobody does; may be out of date when it returns."""
        return self.domain.owner(self.index)

    def __reduce__(self) -> tuple[Any, ...]:
        self._private = None  # from now on somebody else may use the cell
        cell = self.domain.cell(self.index)
        return _from_pickle, (
            self.domain.token(), self.index, cell.generation, self.name, self.on_owner_death
        )  # fmt: skip

    def __del__(self, _finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # The cell can be used again only if nobody else can have come by it.
        private = getattr(self, "_private", None)
        if private is not None and not _finalizing() and private == lib.plk_forks_seen():
            self.domain.free_cell(self.index, private)

    def __repr__(self) -> str:
        what = repr(self.name) if self.name is not None else f"{self.index} in {self.domain.describe()}"
        if self.domain.closed:
            return f"<pylocks.{type(self).__name__} {what}: closed>"
        try:
            owner = self.owner
        except errors.DomainError as error:
            return f"<pylocks.{type(self).__name__} {what}: {error}>"
        if owner is None:
            return f"<pylocks.{type(self).__name__} {what}: free>"
        return (
            f"<pylocks.{type(self).__name__} {what}: held by thread {owner.tid} of process {owner.pid}, "
            f"{self.waiters} waiting>"
        )


class TicketRLock(RecursiveLock, TicketLock):
    """A TicketLock that the thread which holds it may acquire again, at once.

    It must then be released as often as it was acquired, by that thread; depth says how often that is.
    All else, names, policies, timeouts and what is told of a holder's death at whatever depth, is as
    TicketLock's, whose arguments it takes; an owner's acquire() hears nothing of a death that it was told
    of as it entered.  A name is a TicketLock's or a TicketRLock's: WrongKindError for the other.
    """

    __slots__ = ()


def _kind(cls: type[TicketLock], domain: Domain) -> type[TicketLock]:
    """What handles of the domain's locks are made of: such as look at their order, if it asks for that."""
    if not domain.checks_order or issubclass(cls, OrderedLock):
        return cls
    if cls not in _ordered:
        body = {"__slots__": (), "__module__": cls.__module__, "__doc__": cls.__doc__}
        # Two threads may be here at once: the first one's is everybody's.
        _ordered.setdefault(cls, type(cls.__name__, (OrderedLock, cls), body))
    return _ordered[cls]


_ordered: dict[type[TicketLock], type[TicketLock]] = {}


def _domain_for_name(name: str, create: bool) -> Domain:
    try:
        return user_domain(create)
    except errors.UnknownDomainError:
        raise errors.UnknownLockError(
            f"there is no lock {name!r}: this user has no named locks at all, and create=False"
        ) from None


def _from_pickle(
    token: Token, index: int, generation: int, name: str | None, on_owner_death: str
) -> TicketLock:
    domain = from_token(token)
    cell = domain.cell(index)
    if cell.generation != generation or not (domain.is_array or cell.flags & lib.PLK_CELL_ALLOCATED):
        raise errors.UnknownLockError(
            f"lock {index} of {domain.describe()} has been freed since it was pickled"
        )
    return lock_at(domain, index, name, on_owner_death)


class LockArray(Array):
    """`n` ticket locks in a domain of their own: made in no time, memory only where touched.

    locks[i] is a TicketLock; acquire(i) and release(i) do without making one.  Without a name it
    travels as an anonymous lock does; with one, unrelated processes attach it.  packed: 32 bytes a
    lock instead of a cache line, for many locks that are rarely contended.  Raises ValueError if
    an array of that name exists with another length or packing, or the name is a Domain's.
    on_owner_death: as TicketLock's.
    """

    __slots__ = ("on_owner_death", "packed")

    packed: bool
    on_owner_death: str

    def __new__(
        cls,
        n: int,
        name: str | None = None,
        *,
        packed: bool = False,
        create: bool = True,
        on_owner_death: str = "warn",
    ) -> LockArray:
        """See the class; also any DomainError of attaching."""
        if not 1 <= n <= lib.PLK_MAX_CELLS:
            raise ValueError(f"an array has 1 to {lib.PLK_MAX_CELLS} locks, not {n}")
        _refuses(on_owner_death)
        request = Request(4096, n, "auto", array=True, packed=packed)
        domain = make(name, 0o600, create, request)
        if not domain.is_array:
            raise ValueError(f"{domain.describe()} is a Domain, not a LockArray")
        if (domain.lock_limit, domain.is_packed) != (n, packed):
            raise ValueError(
                f"the LockArray {name!r} exists with {domain.lock_limit} locks and "
                f"packed={domain.is_packed}, not {n} and packed={packed}"
            )
        return _array_of(domain, on_owner_death)

    def __getitem__(self, index: SupportsIndex) -> TicketLock:
        n, index = len(self), operator.index(index)
        if not -n <= index < n:
            raise IndexError(f"lock {index} is not in an array of {n} locks")
        return lock_at(self.domain, index % n, None, self.on_owner_death)

    def __iter__(self) -> Iterator[TicketLock]:
        return (self[i] for i in range(len(self)))

    def close(self) -> None:
        """Stop using the array in this process; as Domain.close."""
        self.domain.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _array_from_pickle, (self.domain.token(), self.on_owner_death)

    def __repr__(self) -> str:
        return f"<pylocks.LockArray of {len(self)} locks in {self.domain.describe()}>"


def _array_of(domain: Domain, on_owner_death: str) -> LockArray:
    array: LockArray = Array.__new__(
        LockArray, domain, domain.address, domain.lock_limit, _refuses(on_owner_death)
    )
    array.packed, array.on_owner_death = domain.is_packed, on_owner_death
    return array


def _array_from_pickle(token: Token, on_owner_death: str) -> LockArray:
    return _array_of(from_token(token), on_owner_death)
