"""What semaphores, events and their like have in common: names, pickling, and how one is made."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from pylocks import _lock, errors, segment
from pylocks._core import ffi, lib
from pylocks.domain import Domain, Token, from_token
from pylocks.locks import domain_for

__all__ = ["KINDS", "Shared", "kind_at"]

KINDS = {ffi.string(lib.plk_kind_name(n)).decode(): n for n in range(lib.PLK_KIND_COUNT)}
"""The numbers that the C half has for them, by name; 0 is a lock."""

NAMES = {number: name for name, number in KINDS.items()}

S = TypeVar("S", bound="Shared")


class Shared(_lock.Sync):
    """Base of the classes for one kind; each is made of the kind's type in pylocks._lock, too."""

    __slots__ = ()

    name: str | None
    _private: int | None

    @classmethod
    def _open(
        cls: type[S],
        kind: str,
        name: str | None,
        domain: Domain | None,
        initial: int = 0,
        limit: int = 0,
    ) -> S:
        """The object of that kind, made if need be: the state of its word at first, and the kind's limit.

        WrongKindError if the name is that of something else; any DomainError.
        """
        domain = domain_for(name, domain)
        raw = None if name is None else segment.encoded(name)
        domain.not_an_array()
        seed = ffi.new("struct plk_seed *", {"kind": KINDS[kind], "initial": initial, "limit": limit})
        with domain._guard:
            s = domain._live()
            index = (
                lib.plk_sync_new(s, seed) if raw is None else lib.plk_sync_find(s, raw, len(raw), True, seed)
            )
        index = domain._cell(int(index))
        made = cls._at(domain, index, kind, name)
        made._private = lib.plk_forks_seen() if name is None else None
        return made

    @classmethod
    def _at(cls: type[S], domain: Domain, index: int, kind: str, name: str | None) -> S:
        """A handle of an existing one; WrongKindError, ClosedError."""
        made: S = _lock.Sync.__new__(cls, domain, domain.address, index, KINDS[kind])
        made.name = name
        made._private = None
        return made

    @property
    def kind(self) -> str:
        """What it is, as messages call it."""
        return kind_at(self.domain, self.index)

    def __reduce__(self) -> tuple[Any, ...]:
        self._private = None  # from now on somebody else may use the cell
        cell = self.domain.cell(self.index)
        return _from_pickle, (
            type(self),
            self.domain.token(),
            self.index,
            cell.generation,
            self.kind,
            self.name,
        )

    def __del__(self, _finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # The cell can be used again only if nobody else can have come by it.
        private = getattr(self, "_private", None)
        if private is not None and not _finalizing() and private == lib.plk_forks_seen():
            self.domain.free_cell(self.index, private)

    def _described(self, state: Callable[[], str]) -> str:
        """For __repr__: its name or place, and its state, if the domain is open."""
        what = repr(self.name) if self.name is not None else f"{self.index} in {self.domain.describe()}"
        told = "closed" if self.domain.closed else state()
        return f"<pylocks.{type(self).__name__} {what}: {told}>"


def kind_at(domain: Domain, index: int) -> str:
    """What lies at that index of the domain, as messages call it; UnknownLockError, ClosedError."""
    flags = domain.cell(index).flags
    number = flags >> 8 & 0xFF if flags & lib.PLK_CELL_SYNC else 0
    return NAMES.get(number, f"kind {number} of another version")


def _from_pickle(cls: type[S], token: Token, index: int, generation: int, kind: str, name: str | None) -> S:
    domain = from_token(token)
    cell = domain.cell(index)
    if cell.generation != generation or not cell.flags & lib.PLK_CELL_ALLOCATED:
        raise errors.UnknownLockError(
            f"{kind} {index} of {domain.describe()} has been freed since it was pickled"
        )
    return cls._at(domain, index, kind, name)
