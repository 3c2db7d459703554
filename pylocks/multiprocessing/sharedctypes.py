"""ctypes objects in shared memory, whose locks are pylocks', and which can be pickled to any process."""

from __future__ import annotations

import multiprocessing.sharedctypes as standard
import os
import weakref
from multiprocessing import heap, util
from multiprocessing.context import get_spawning_popen
from multiprocessing.sharedctypes import RawArray, RawValue, copy, rebuild_ctype  # type: ignore[attr-defined]
from typing import Any

from pylocks.multiprocessing.context import _default_context
from pylocks.multiprocessing.descriptors import Way, way_to

__all__ = ["Array", "RawArray", "RawValue", "Value", "copy", "synchronized"]


def Value(typecode_or_type: Any, *args: Any, lock: Any = True, ctx: Any = None) -> Any:
    """multiprocessing.Value; `lock`: one that is to be used, True for an RLock, False for none."""
    return _with_lock(RawValue(typecode_or_type, *args), lock, ctx)


def Array(typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True, ctx: Any = None) -> Any:
    """multiprocessing.Array; `lock` as Value's."""
    return _with_lock(RawArray(typecode_or_type, size_or_initializer), lock, ctx)


def _with_lock(obj: Any, lock: Any, ctx: Any) -> Any:
    if lock is False:
        return obj
    if lock in (True, None):
        lock = (ctx or _default_context.get_context()).RLock()
    if not hasattr(lock, "acquire"):
        raise AttributeError(f"{lock!r} has no method 'acquire'")
    return synchronized(obj, lock, ctx)


def synchronized(obj: Any, lock: Any = None, ctx: Any = None) -> Any:
    """A wrapper of a shared ctypes object that takes `lock`, or an RLock of its own, around each access."""
    ctx = ctx or _default_context.get_context()
    made = standard.synchronized(obj, lock, ctx)
    made.__class__ = _travelling(type(made))
    return made


class _Travelling:
    """Pickling at any time; the standard library's wrappers are only passed to children on their start."""

    _obj: Any
    _lock: Any

    def __reduce__(self) -> Any:
        if get_spawning_popen() is not None:
            return synchronized, (self._obj, self._lock)
        (arena, start, stop), size = self._obj._wrapper._state
        kind, length = type(self._obj), None
        if hasattr(self._obj, "_length_"):
            kind, length = self._obj._type_, self._obj._length_
        return _rebuild, (
            way_to(arena.fd),
            _file(arena.fd),
            arena.size,
            start,
            stop,
            size,
            kind,
            length,
            self._lock,
        )


_classes: dict[type, type] = {}


def _travelling(kind: type) -> type:
    if kind not in _classes:
        body = {"__module__": kind.__module__, "__doc__": kind.__doc__}
        _classes[kind] = type(kind.__name__, (_Travelling, kind), body)
    return _classes[kind]


_File = tuple[int, int]
_arenas: weakref.WeakValueDictionary[_File, Any] = weakref.WeakValueDictionary()
"""What has been unpickled here, so that a thousand values of one arena need but one mapping."""


def _file(fd: int) -> _File:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _rebuild(
    way: Way,
    file: _File,
    length: int,
    start: int,
    stop: int,
    size: int,
    kind: Any,
    items: int | None,
    lock: Any,
) -> Any:
    arena = _arenas.get(file)
    if arena is None:
        fd = way(os.O_RDWR)
        arena = heap.Arena(length, fd)
        util.Finalize(arena, os.close, (fd,))
        _arenas[file] = arena
    wrapper: Any = heap.BufferWrapper.__new__(heap.BufferWrapper)
    wrapper._state = ((arena, start, stop), size)
    return synchronized(rebuild_ctype(kind, wrapper, items), lock)
