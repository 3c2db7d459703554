"""The processes and threads behind vCPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import PurePath

__all__ = ["People", "Person", "Strangers", "short_command"]

_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "disk sleep",
    "T": "stopped",
    "t": "traced",
    "Z": "zombie",
    "X": "dead",
    "I": "idle",
}
# Fields of /proc/PID/stat behind the name, which may itself hold spaces and parentheses.
_STATE, _START_TIME, _CPU = 0, 19, 36

_REMEMBERED = 10_000
"""Names of so many processes; processes come and go for as long as somebody watches."""


@dataclass(frozen=True)
class Person:
    """What the kernel says of a thread; all None if it can't be asked."""

    process: str | None = None
    command: str | None = None
    state: str | None = None
    cpu: int | None = None


def _stat(path: str) -> list[str] | None:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return fields if len(fields) > _CPU else None


class People:
    """Asks for processes and threads; a process's name and command line once for as long as it lives."""

    def __init__(self) -> None:
        self._names: dict[tuple[int, int], tuple[str, str] | None] = {}
        try:
            self.pid_ns = os.stat("/proc/self/ns/pid").st_ino
        except OSError:
            self.pid_ns = 0

    def foreign(self, pid_ns: int) -> bool:
        """Pids of that namespace are not those of this process's."""
        return pid_ns != self.pid_ns

    def find(self, pid: int, tid: int, start_time: int) -> Person:
        """The thread, if the process with that pid is still the one that started then."""
        leader = _stat(f"/proc/{pid}/stat")
        if leader is None or int(leader[_START_TIME]) != start_time:
            return Person()
        thread = leader if tid == pid else _stat(f"/proc/{pid}/task/{tid}/stat")
        key = (pid, start_time)
        if key not in self._names:
            if len(self._names) >= _REMEMBERED:
                self._names.clear()
            self._names[key] = _name(pid)
        name, command = self._names[key] or (None, None)
        if thread is None:
            return Person(name, command)
        return Person(name, command, _STATES.get(thread[_STATE], thread[_STATE]), int(thread[_CPU]))


class Strangers(People):
    """Asks for nobody: for those who want to know what is there, and not who it is."""

    def find(self, pid: int, tid: int, start_time: int) -> Person:
        """Nothing is known."""
        return Person()


def _name(pid: int) -> tuple[str, str] | None:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            name = process.name()
            return name, " ".join(process.cmdline()) or name
    except (psutil.Error, OSError):
        return None


def short_command(process: str | None, command: str | None) -> str | None:
    """What tells processes apart that are all called python: the script or module that they run."""
    if not process or not command or not process.startswith("python"):
        return process
    words = command.split()[1:]
    while words and words[0].startswith("-"):
        option = words.pop(0)
        if option == "-m" and words:
            return words[0]
        if option == "-c":
            return f"{process} -c"
        if option in ("-W", "-X") and words:
            words.pop(0)
    return PurePath(words[0]).name if words else process
