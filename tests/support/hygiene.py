"""What a test module leaves behind: shared memory, descriptors, and what the resource tracker says of it."""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import forkserver, resource_tracker
from pathlib import Path
from typing import IO, Any

import psutil

SHM = Path("/dev/shm")
NAMED_BY_US = re.compile(r"pylocks\..*[.-](\d+)-")
"""The names that tests give carry the process that gave them."""
NAMED_BY_LIBRARIES = re.compile(r"pylocks\.([0-9a-f]{32}|user\.\d+)$|sem\.|psm_|pym-")
"""What pylocks and multiprocessing themselves keep in /dev/shm."""
GRACE_S = float(os.environ.get("TESTS_GRACE_S", "10"))


def _entries() -> set[str]:
    found = set()
    for entry in os.listdir(SHM):
        maker = NAMED_BY_US.match(entry)
        if int(maker[1]) == os.getpid() if maker else NAMED_BY_LIBRARIES.match(entry):
            found.add(entry)
    return found


def _descriptors() -> set[tuple[int, str]]:
    import pylocks

    default = pylocks.locks._default
    kept = -1 if default is None or default.closed else default.token()[3]  # for as long as the process
    found = set()
    for number in map(int, os.listdir("/proc/self/fd")):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue  # the one through which the listing was read
        if number != kept:
            found.add((number, target))
    return found


def _in_use_elsewhere(entry: str) -> bool:
    """A process that is neither this one nor a descendant has it mapped."""
    mine = {os.getpid(), *(child.pid for child in psutil.Process().children(recursive=True))}
    for pid in set(psutil.pids()) - mine:
        try:
            if f"{SHM}/{entry}" in Path(f"/proc/{pid}/maps").read_text():
                return True
        except OSError:
            pass  # it has ended, or is somebody else's
    return False


@dataclass(frozen=True)
class Belongings:
    """What this process had at some time."""

    entries: frozenset[str]
    descriptors: frozenset[tuple[int, str]]

    @classmethod
    def now(cls) -> Belongings:
        """What it has now."""
        return cls(frozenset(_entries()), frozenset(_descriptors()))

    def changes(self, grace: float = GRACE_S) -> str:
        """What is there now and was not, and the other way round; "" if nothing is.

        A thread that has been joined may still be letting go of what it used.
        """
        deadline = time.monotonic() + grace
        while (changes := self._changes()) and time.monotonic() < deadline:
            time.sleep(0.02)
        return changes

    def _changes(self) -> str:
        found = []
        left = {entry for entry in _entries() - self.entries if not _in_use_elsewhere(entry)}
        if left:
            found.append(f"left in {SHM}: {', '.join(sorted(left))}")
        now = _descriptors()
        for what, several in (("left open", now - self.descriptors), ("closed", self.descriptors - now)):
            found += [f"descriptor {what}: {number} -> {target}" for number, target in sorted(several)]
        return "\n".join(found)


_start_tracker: Any = resource_tracker.ResourceTracker.ensure_running


@contextmanager
def heard_tracker() -> Iterator[IO[str]]:
    """Let multiprocessing's resource tracker, should it be started, write into a file instead of stderr."""
    before: Any = resource_tracker.ResourceTracker.ensure_running
    with tempfile.TemporaryFile("w+") as file:

        def ensure_running(self: Any) -> None:
            stderr = os.dup(2)
            os.dup2(file.fileno(), 2)
            try:
                _start_tracker(self)
            finally:
                os.dup2(stderr, 2)
                os.close(stderr)

        resource_tracker.ResourceTracker.ensure_running = ensure_running  # type: ignore[method-assign]
        try:
            yield file
        finally:
            resource_tracker.ResourceTracker.ensure_running = before  # type: ignore[method-assign]


def dismiss_helpers(said: IO[str]) -> str:
    """End multiprocessing's helpers; what the resource tracker had to say."""
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    resource_tracker._resource_tracker._stop()  # type: ignore[attr-defined]
    said.seek(0)
    return said.read()
