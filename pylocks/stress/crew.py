"""The workers of one row, as their parent sees them: forked, watched, reaped."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import worker
from .shared import Area, now


@dataclass(frozen=True)
class Ended:
    """How a worker ended, and what it used, killed or not."""

    status: int  #: exit status; negative: the signal that killed it
    killed: bool  #: by us
    cpu_seconds: float
    voluntary: int  #: context switches
    involuntary: int


class Crew:
    """Forks one worker for each area of the mapping.

    Must be created by a process with a single thread.  ``locks`` are shared by
    inheritance.  ``close`` leaves no process behind.
    """

    def __init__(self, area: Area, locks: Sequence[Any], *, ticketed: bool) -> None:
        self._area = area
        self._living: dict[int, int] = {}  # pid -> worker number
        self._killed_at: dict[int, int] = {}
        self.ended: dict[int, Ended] = {}
        parent = os.getpid()
        gc.freeze()  # a collection in a worker would only copy the pages it looks at
        try:
            for number in range(area.workers):
                pid = os.fork()
                if pid == 0:
                    worker.run(area, number, locks, ticketed=ticketed, parent=parent)
                self._living[pid] = number
        except OSError:
            self.close()
            raise

    def living(self) -> list[int]:
        """Numbers of the workers that have not been reaped."""
        return sorted(self._living.values())

    def pid(self, number: int) -> int:
        """The process of a living worker; raises ValueError for another."""
        return list(self._living)[list(self._living.values()).index(number)]

    def reap(self) -> int:
        """Take note of workers that ended; how many live."""
        for pid in list(self._living):
            self._wait(pid, os.WNOHANG)
        return len(self._living)

    def kill(self) -> int:
        """End the living ones and reap them; how many that were.

        Nothing counts any more from the moment before the first is killed.
        """
        self._area.control.closed = 1
        for pid, number in self._living.items():
            self._killed_at[number] = now()
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in list(self._living):
            self._wait(pid, 0)
        return sum(end.killed for end in self.ended.values())

    def killed_at(self, number: int) -> int:
        """When the worker was killed by us, CLOCK_MONOTONIC ns."""
        return self._killed_at[number]

    def close(self) -> None:
        """Leave nobody behind."""
        self.kill()

    def _wait(self, pid: int, flags: int) -> None:
        found, status, used = os.wait4(pid, flags)
        if found == 0:
            return
        number = self._living.pop(pid)
        code = os.waitstatus_to_exitcode(status)
        self.ended[number] = Ended(
            status=code,
            killed=code == -signal.SIGKILL and number in self._killed_at,
            cpu_seconds=used.ru_utime + used.ru_stime,
            voluntary=used.ru_nvcsw,
            involuntary=used.ru_nivcsw,
        )
