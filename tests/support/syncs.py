"""Processes that use semaphores and their like, for the tests of those."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pylocks
from support.wait import until

KINDS: dict[str, Callable[..., pylocks.Semaphore]] = {
    "free": pylocks.Semaphore,
    "bounded": pylocks.BoundedSemaphore,
    "owned": lambda value=1, **more: pylocks.Semaphore(value, owned=True, **more),
}
"""Of semaphores."""


class Forked:
    """A forked child that runs a function and ends with 0, or 1 if it raises."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.pid = os.fork()
        if self.pid == 0:
            status = 1
            try:
                function()
                status = 0
            finally:
                os._exit(status)
        self.status: int | None = None

    def ended(self) -> bool:
        """It has; its exit code is in status."""
        if self.status is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
        return self.status is not None

    def wait(self) -> int:
        """Its exit code, when it has ended."""
        until(self.ended, f"process {self.pid} to end")
        assert self.status is not None
        return self.status

    def kill(self) -> None:
        """SIGKILL, and it is gone."""
        if not self.ended():
            os.kill(self.pid, signal.SIGKILL)
            self.wait()


@contextmanager
def forked(*functions: Callable[[], object]) -> Iterator[list[Forked]]:
    """A child for each."""
    children = []
    try:
        for function in functions:
            children.append(Forked(function))
        yield children
    finally:
        for child in children:
            child.kill()


def waiting(sync: Any, count: int) -> None:
    """Until so many wait for it."""
    until(lambda: sync.waiters == count, f"{count} to wait for {sync!r}")


@contextmanager
def thread(function: Callable[[], object]) -> Iterator[threading.Thread]:
    """A thread that has ended behind the block."""
    made = threading.Thread(target=function)
    made.start()
    yield made
    made.join(60)
    assert not made.is_alive()
