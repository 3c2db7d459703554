"""flock(2) on a file: the kernel's own lock between processes."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from .interface import Subject, Terms


class Flock:
    """A lock on an open file; a process that inherits it needs another."""

    __slots__ = ("_fd", "_flock", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        self._flock = fcntl.flock

    def acquire(self) -> None:
        """Wait for it."""
        self._flock(self._fd, fcntl.LOCK_EX)

    def release(self) -> None:
        """Let it go."""
        self._flock(self._fd, fcntl.LOCK_UN)

    def __enter__(self) -> None:
        self._flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *exc: object) -> None:
        self._flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def again(self) -> Flock:
        """The same lock for another process, or another thread."""
        return Flock(self.path)


@contextmanager
def _open(terms: Terms) -> Iterator[Flock]:
    with tempfile.NamedTemporaryFile(prefix="pylocks-bench-") as file:
        lock = Flock(file.name)
        try:
            yield lock
        finally:
            lock.close()


SUBJECT = Subject("flock", "between unrelated processes, recovers from death", _open, inherit=Flock.again)
