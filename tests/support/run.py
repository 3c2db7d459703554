"""Running Python in a process of its own, with a bound, and nothing left of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

TESTS = Path(__file__).resolve().parent.parent
LIMIT_S = 100.0
GRACE_S = 10.0
"""multiprocessing's resource tracker ends when it notices that its process has."""


@dataclass(frozen=True)
class Done:
    """How a process ended."""

    status: int
    out: str
    err: str
    left: bool
    """Processes that it started were still there."""

    def check(self) -> str:
        """Standard output of a success that wrote nothing on standard error and left nobody behind."""
        assert self.status == 0, f"exit status {self.status}\n{self.out}\n{self.err}"
        assert not self.err, f"noise on standard error:\n{self.err}"
        assert not self.left, "processes were left behind"
        return self.out


def settings(**changes: str) -> dict[str, str]:
    """An environment in which `support` and pylocks are found and nothing is set but `changes`."""
    import pylocks

    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYLOCKS_")}
    paths = [str(TESTS), str(Path(pylocks.__file__).resolve().parent.parent)]
    environment["PYTHONPATH"] = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
    return environment | changes


def python(
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    stdin: bytes = b"",
    limit: float = LIMIT_S,
    before: tuple[str, ...] = (),
) -> Done:
    """Run the interpreter with these arguments (behind the command `before`); wait for it."""
    process = subprocess.Popen(
        [*before, sys.executable, *map(str, arguments)],
        env=settings() if environment is None else dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        out, err = process.communicate(stdin, timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        err += f"\nkilled after {limit:g} s".encode()
    return Done(process.returncode, out.decode(), err.decode(), end_session(process.pid))


def alive(pid: int) -> bool:
    """The process exists and is no zombie: those of orphans last until init looks."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _members(leader: int) -> list[int]:
    found = []
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) == leader and alive(pid):
                found.append(pid)
        except ProcessLookupError:
            pass
    return found


def end_session(leader: int, grace: float = GRACE_S) -> bool:
    """Is anything left of a process group when helpers had time to follow it?  If so, kill it."""
    deadline = time.monotonic() + grace
    while _members(leader):
        if time.monotonic() >= deadline:
            os.killpg(leader, signal.SIGKILL)
            return True
        time.sleep(0.005)
    return False


class Interactive:
    """A Python process that is talked with line by line; killed at the end of the block."""

    def __init__(self, *arguments: str | Path, environment: Mapping[str, str] | None = None) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            env=settings() if environment is None else dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Interactive:
        return self

    def __exit__(self, *_: object) -> None:
        end_session(self.pid, grace=0)
        self._process.communicate()

    def line(self) -> str:
        """The next line that it prints; "" at the end."""
        assert self._process.stdout
        return self._process.stdout.readline().decode().rstrip("\n")

    def say(self, text: str) -> None:
        """Give it a line."""
        assert self._process.stdin
        self._process.stdin.write(f"{text}\n".encode())
        self._process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """Until it has ended; the exit status."""
        return self._process.wait(LIMIT_S)
