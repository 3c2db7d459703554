"""Contexts: the standard library's, with factories that make pylocks' primitives.

A start method is the process's: pylocks.multiprocessing and multiprocessing share it, whichever it is
set through.  So processes are those of the standard library, and what it tells its children about the
start method holds here, too; nothing need be told twice, and a program may use both side by side.
"""

from __future__ import annotations

import multiprocessing.context as standard
import multiprocessing.reduction as reduction
from collections.abc import Callable, Iterable
from multiprocessing.context import (
    AuthenticationError,
    BufferTooShort,
    Process,
    ProcessError,
    TimeoutError,
    assert_spawning,
    get_spawning_popen,
    set_spawning_popen,
)
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pylocks.multiprocessing import pool, queues, synchronize

__all__ = [
    "AuthenticationError",
    "BaseContext",
    "BufferTooShort",
    "DefaultContext",
    "ForkContext",
    "ForkServerContext",
    "Process",
    "ProcessError",
    "SpawnContext",
    "TimeoutError",
    "assert_spawning",
    "get_spawning_popen",
    "reduction",
    "set_spawning_popen",
]


class BaseContext(standard.BaseContext):
    """What multiprocessing.context.BaseContext offers, on pylocks' primitives."""

    def get_context(self, method: str | None = None) -> Any:
        """The context of a start method ("fork", "spawn", "forkserver"), or this one; ValueError."""
        if method is None:
            return self
        if method not in _concrete_contexts:
            theirs = _standard_contexts.get(method)  # others may have added some: joblib's loky has one
            if theirs is None:
                raise ValueError(f"cannot find context for {method!r}")
            kind = type(type(theirs).__name__, (BaseContext, type(theirs)), {"__module__": __name__})
            _concrete_contexts.setdefault(method, kind())
        return _concrete_contexts[method]

    def Lock(self) -> synchronize.Lock:  # type: ignore[override]
        """A lock that any process may release; recovered if its holder dies."""
        from pylocks.multiprocessing.synchronize import Lock

        return Lock(ctx=self.get_context())

    def RLock(self) -> synchronize.RLock:  # type: ignore[override]
        """A lock that its holder may take again; recovered if its holder dies."""
        from pylocks.multiprocessing.synchronize import RLock

        return RLock(ctx=self.get_context())

    def Condition(self, lock: Any = None) -> synchronize.Condition:  # type: ignore[override]
        """A condition variable over `lock`, or an RLock of its own."""
        from pylocks.multiprocessing.synchronize import Condition

        return Condition(lock, ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> synchronize.Semaphore:  # type: ignore[override]
        """A semaphore with `value` permits."""
        from pylocks.multiprocessing.synchronize import Semaphore

        return Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> synchronize.BoundedSemaphore:  # type: ignore[override]
        """A semaphore that never has more than `value` permits."""
        from pylocks.multiprocessing.synchronize import BoundedSemaphore

        return BoundedSemaphore(value, ctx=self.get_context())

    def Event(self) -> synchronize.Event:  # type: ignore[override]
        """A flag to wait for."""
        from pylocks.multiprocessing.synchronize import Event

        return Event(ctx=self.get_context())

    def Barrier(  # type: ignore[override]
        self, parties: int, action: Callable[[], object] | None = None, timeout: float | None = None
    ) -> synchronize.Barrier:
        """Where `parties` wait for each other."""
        from pylocks.multiprocessing.synchronize import Barrier

        return Barrier(parties, action, timeout, ctx=self.get_context())

    def Queue(self, maxsize: int = 0) -> queues.Queue:
        """A queue with a feeder thread."""
        from pylocks.multiprocessing.queues import Queue

        return Queue(maxsize, ctx=self.get_context())

    def JoinableQueue(self, maxsize: int = 0) -> queues.JoinableQueue:
        """A Queue with task_done() and join()."""
        from pylocks.multiprocessing.queues import JoinableQueue

        return JoinableQueue(maxsize, ctx=self.get_context())

    def SimpleQueue(self) -> queues.SimpleQueue:
        """A locked pipe."""
        from pylocks.multiprocessing.queues import SimpleQueue

        return SimpleQueue(ctx=self.get_context())

    def Pool(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
    ) -> pool.Pool:
        """A pool of processes."""
        from pylocks.multiprocessing.pool import Pool

        return Pool(processes, initializer, initargs, maxtasksperchild, context=self.get_context())

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """A ctypes object in shared memory, with a lock."""
        from pylocks.multiprocessing.sharedctypes import Value

        return Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """A ctypes array in shared memory, with a lock."""
        from pylocks.multiprocessing.sharedctypes import Array

        return Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context())


class ForkContext(BaseContext, standard.ForkContext):
    """Children are forks."""


class SpawnContext(BaseContext, standard.SpawnContext):
    """Children are fresh interpreters."""


class ForkServerContext(BaseContext, standard.ForkServerContext):
    """Children are forks of a small server."""


class DefaultContext(BaseContext, standard.DefaultContext):
    """The context of the process's start method, which is the standard library's."""

    def get_context(self, method: str | None = None) -> Any:
        """The context of that start method, or of the default one, which is settled thereby; ValueError."""
        return super().get_context(self.get_start_method() if method is None else method)

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Of this process and the children that it starts; RuntimeError if it is settled, without `force`."""
        _theirs.set_start_method(method, force)

    def get_start_method(self, allow_none: bool = False) -> Any:
        """Its name, which is settled thereby; with `allow_none`, None if it is not yet."""
        return _theirs.get_start_method(allow_none)


_theirs = standard._default_context
_standard_contexts: dict[str, standard.BaseContext] = vars(standard)["_concrete_contexts"]
_concrete_contexts: dict[str, BaseContext] = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}
_default_context = DefaultContext(_concrete_contexts["fork"])
