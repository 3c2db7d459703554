"""Queues on pylocks' primitives, which outlive the death of whoever uses them."""

from __future__ import annotations

import multiprocessing.queues as standard
import time
from multiprocessing.reduction import ForkingPickler
from queue import Empty, Full
from typing import Any

from pylocks.multiprocessing.pipes import MarkedConnection, MessageLost, marked_pipe
from pylocks.multiprocessing.synchronize import Condition, QuietLock

__all__ = ["Empty", "Full", "JoinableQueue", "Queue", "SimpleQueue"]

LOOK_AGAIN_S = 1.0


class Queue(standard.Queue):  # type: ignore[type-arg]
    """multiprocessing.Queue, which can also be pickled to any process of this user.

    Who is killed while it gets or puts takes the message that it was reading or writing with it; everybody
    else goes on.
    """

    _ignore_epipe: bool
    _maxsize: int
    _closed: bool
    _opid: int
    _reader: Any
    _writer: Any
    _recv_bytes: Any
    _rlock: Any
    _wlock: Any
    _sem: Any

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        super().__init__(maxsize, ctx=ctx)
        self._reader.close()
        self._writer.close()
        self._reader, self._writer = marked_pipe()
        self._rlock, self._wlock = QuietLock(ctx=ctx), QuietLock(ctx=ctx)
        self._reset()

    def __getstate__(self) -> Any:
        return (
            self._ignore_epipe, self._maxsize, self._reader, self._writer,
            self._rlock, self._wlock, self._sem, self._opid,
        )  # fmt: skip

    def _reset(self, after_fork: bool = False) -> None:
        super()._reset(after_fork)  # type: ignore[misc]
        if isinstance(self._reader, MarkedConnection):  # not yet while the base class makes its own
            self._recv_bytes = self._reader.receive
            self._wlock.mend = self._writer.tear

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """As the standard library's; parts of messages whose readers or writers died are passed over."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not block or deadline is not None or self._closed:
            try:
                return super().get(block, timeout)
            except MessageLost:
                if deadline is not None:
                    timeout = max(0.0, deadline - time.monotonic())
        while True:  # the same without a bound, which is what programs wait for most
            try:
                with self._rlock:
                    data = self._recv_bytes()
            except MessageLost:
                continue
            self._sem.release()
            return ForkingPickler.loads(data)


class JoinableQueue(Queue, standard.JoinableQueue):  # type: ignore[type-arg]
    """multiprocessing.JoinableQueue, likewise."""

    _cond: Any
    _unfinished_tasks: Any

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        super().__init__(maxsize, ctx=ctx)
        self._cond = Condition(QuietLock(ctx=ctx), ctx=ctx)

    def join(self) -> None:
        """Wait until task_done() was called for all; also if who did so last died before it said so."""
        with self._cond:
            while not self._unfinished_tasks._is_zero():
                self._cond.wait(LOOK_AGAIN_S)

    def __getstate__(self) -> Any:
        return (*super().__getstate__(), self._cond, self._unfinished_tasks)


class SimpleQueue(standard.SimpleQueue):  # type: ignore[type-arg]
    """multiprocessing.SimpleQueue, likewise."""

    _rlock: Any
    _wlock: Any

    def __init__(self, *, ctx: Any) -> None:
        super().__init__(ctx=ctx)
        self.close()
        self._reader, self._writer = marked_pipe()
        self._rlock, self._wlock = QuietLock(ctx=ctx), QuietLock(ctx=ctx)
        self._poll = self._reader.poll
        self._wlock.mend = self._writer.tear

    def __getstate__(self) -> Any:
        return self._reader, self._writer, self._rlock, self._wlock

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self._wlock.mend = self._writer.tear
