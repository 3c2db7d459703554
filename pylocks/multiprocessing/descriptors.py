"""Files without a name on their way to processes that did not inherit them.

While a process spawns a child, the standard library passes descriptors on.  At any other time a pickle names
the process, the descriptor and the file, and whoever unpickles it opens the file through /proc: no thread has
to wait for it, and nothing is kept for those who never do.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing import reduction
from multiprocessing.context import ProcessError, get_spawning_popen

__all__ = ["Way", "way_to"]

Way = Callable[[int], int]
"""Called once with flags of os.open, in the process that unpickled it; a descriptor; ProcessError."""


def way_to(fd: int) -> Way:
    """A way to this file that can be pickled; while a child is being started, to that child alone."""
    if get_spawning_popen() is not None:
        return _Passed(reduction.DupFd(fd))
    found = os.fstat(fd)
    return _Found(os.getpid(), fd, (found.st_dev, found.st_ino))


class _Passed:
    def __init__(self, duplicate: object) -> None:
        self._duplicate = duplicate

    def __call__(self, flags: int) -> int:
        return int(self._duplicate.detach())  # type: ignore[attr-defined]


class _Found:
    def __init__(self, pid: int, fd: int, file: tuple[int, int]) -> None:
        self._pid, self._fd, self._file = pid, fd, file

    def __call__(self, flags: int) -> int:
        path = f"/proc/{self._pid}/fd/{self._fd}"
        try:
            if self._is(os.stat(path)):  # before it is opened: some files make open() wait
                fd = os.open(path, flags | os.O_CLOEXEC)
                if self._is(os.fstat(fd)):
                    return fd
                os.close(fd)
        except OSError:
            pass
        raise ProcessError(
            f"what process {self._pid} pickled can't be reached: that process has ended, has given it up, or "
            "belongs to another user. A queue or a value in shared memory can be unpickled only while the "
            "process that pickled it keeps it."
        )

    def _is(self, found: os.stat_result) -> bool:
        return (found.st_dev, found.st_ino) == self._file
