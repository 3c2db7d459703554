"""What a lock must be to be measured from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

__all__ = ["OPERATIONS", "Lock", "Subject", "Terms", "UnavailableError"]

OPERATIONS: Mapping[str, str] = MappingProxyType(
    {
        "with": "with lock: pass",
        "pair": "lock.acquire(); lock.release()",
    }
)
"""The operations that are timed: name -> statement about a free `lock`."""


class UnavailableError(RuntimeError):
    """A subject can't be had here; the message says why."""


@dataclass(frozen=True)
class Terms:
    """Under which a lock is made."""

    processes: int = 1
    """That will use it."""
    locks: int = 1
    policy: str = "fifo"
    """Of pylocks' locks; nobody else has a choice."""


class Lock(Protocol):
    """All that the benchmarks need of a lock."""

    def acquire(self) -> Any: ...

    def release(self) -> Any: ...

    def __enter__(self) -> Any: ...

    def __exit__(self, *exc: Any) -> Any: ...


@dataclass(frozen=True)
class Subject:
    """One kind of lock."""

    name: str
    """As users call it: "threading.Lock"."""
    meaning: str
    """In one line, what its user gets."""
    open: Callable[[Terms], AbstractContextManager[Lock | None]]
    """Makes a free lock, to be removed without a trace afterwards; UnavailableError, OSError, ValueError."""
    inherit: Callable[[Any], Any] = lambda lock: lock
    """What a forked process does with the lock before it uses it."""
    open_many: Callable[[Terms], AbstractContextManager[Any]] | None = None
    """Makes terms.locks at once, an object with acquire(i) and release(i); None: there is no such thing,
    and a list of locks serves."""
    across: str = "processes"
    """Between what it excludes: "processes", or only "threads"."""
    excludes: bool = True
    """False: it locks nothing, and measures the harness."""
    statements: Mapping[str, str] = field(default_factory=lambda: OPERATIONS)
    """What is timed, if it is not OPERATIONS."""
