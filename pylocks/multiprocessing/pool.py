"""Pools of processes, whose queues are pylocks'."""

from __future__ import annotations

import multiprocessing.pool as standard
from collections.abc import Callable, Iterable
from multiprocessing.pool import ThreadPool
from typing import Any

from pylocks.multiprocessing.context import _default_context

__all__ = ["Pool", "ThreadPool"]


class Pool(standard.Pool):
    """multiprocessing.pool.Pool in a context of pylocks.multiprocessing."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        super().__init__(
            processes, initializer, initargs, maxtasksperchild, context or _default_context.get_context()
        )
