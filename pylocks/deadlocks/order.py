"""Locks taken in both orders: a deadlock that has not happened yet, told of once.

Each time a thread is about to wait for a lock while it holds others, "that one, then this one" is
noted, for the whole process.  If the notes already lead from this one to that one, directly or by
way of others, threads that do both at the same time wait for each other for ever.

Which locks a thread holds is asked of the locks themselves, so a release need not be noted, and an
acquisition that came to nothing does no harm.  Notes are kept for as long as the process lives.
"""

from __future__ import annotations

import itertools
import sys
import threading
import warnings
from collections import deque
from typing import TYPE_CHECKING

from pylocks.errors import LockOrderWarning

if TYPE_CHECKING:
    from pylocks._lock import OrderedLock

_Node = tuple[bytes, int, int]
"""(domain, cell, generation): a lock, whatever handle it is reached by."""

_after: dict[_Node, dict[_Node, str]] = {}
"""What has been waited for while this was held, and where that was."""
_names: dict[_Node, str] = {}
_warned: set[frozenset[_Node]] = set()


class _Thread(threading.local):
    held: tuple[OrderedLock, ...] = ()
    """What this thread may hold: it was about to take them."""


_thread = _Thread()


def before(lock: OrderedLock, waits: bool) -> None:
    """This thread is about to take the lock; LockOrderWarning.  Called by the C half.

    A signal handler may come this way at any point: nothing is left half-done in between.
    """
    held = tuple(each for each in _thread.held if each.held())
    _thread.held = (*held, lock)
    if not waits or not held:
        return
    wanted, where = _node(lock), _caller()
    for each in held:
        node = _node(each)
        if node == wanted or wanted in _after.get(node, ()):
            continue
        way = _way(wanted, node)
        _after.setdefault(node, {}).setdefault(wanted, where)
        if way and frozenset((node, wanted)) not in _warned:
            _warned.add(frozenset((node, wanted)))
            _warn(way, where)


def _node(lock: OrderedLock) -> _Node:
    node = (lock.domain.uid, lock.index, lock.generation)
    if node not in _names:
        name = getattr(lock, "name", None)
        _names[node] = repr(name) if name is not None else f"{lock.index} of {lock.domain.describe()}"
    return node


def _caller() -> str:
    """file:line of the nearest frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("pylocks."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


def _way(start: _Node, end: _Node) -> list[_Node] | None:
    """The shortest way by which the notes lead from one to the other."""
    came: dict[_Node, _Node] = {}
    ahead = deque([start])
    while ahead:
        node = ahead.popleft()
        if node == end:
            way = [node]
            while way[-1] != start:
                way.append(came[way[-1]])
            return way[::-1]
        for other in list(_after.get(node, ())):  # a copy: other threads add to it
            if other != start and other not in came:
                came[other] = node
                ahead.append(other)
    return None


def _warn(way: list[_Node], where: str) -> None:
    taken, held = _names[way[0]], _names[way[-1]]
    steps = ", ".join(
        f"{_names[b]} while {_names[a]} was held ({_after[a][b]})" for a, b in itertools.pairwise(way)
    )
    warnings.warn(
        f"lock {taken} is about to be taken while {held} is held ({where}), but before, {steps}: "
        "threads that do so at the same time wait for each other for ever. Take them in one order.",
        LockOrderWarning,
        stacklevel=3,
    )
