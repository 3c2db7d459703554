"""How long a lock is out of reach after its holder was killed: python -m pylocks.bench.death.

A process that holds a lock is killed with SIGKILL while others wait; the time runs from just before the
kill until the next in line is inside.  No service runs: the waiters find the death themselves.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import pylocks
from .settings import Setting

__all__ = ["Row", "main", "measure"]

SLOW_PATHS = ("futex", "yield", "native")
LONGEST_PAUSE_S = 0.03
"""Two rounds of a waiter's watchdog: the kill comes at any time of one."""


@dataclass(frozen=True)
class Row:
    """What was measured of one slow path and number of waiters."""

    slow_path: str
    waiters: int
    samples_ms: tuple[float, ...]

    def __str__(self) -> str:
        ordered = sorted(self.samples_ms)
        p95 = ordered[min(len(ordered) - 1, len(ordered) * 95 // 100)]
        times = "".join(f"{ms:>11.1f}" for ms in (median(ordered), p95, ordered[-1]))
        return f"{self.slow_path:>9}{self.waiters:>8}{times}"


HEADING = f"{'slow path':>9}{'waiters':>8}{'median ms':>11}{'95 % ms':>11}{'max ms':>11}"


def _child(work: Callable[[], None]) -> int:
    """Fork a process that runs `work` and ends; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(0)
    return pid


def _succession(lock: pylocks.TicketLock, waiters: int) -> float:
    """Milliseconds from one kill until the next in line is inside."""
    readable, writable = os.pipe()
    inside = time.monotonic_ns

    def hold() -> None:
        lock.acquire()
        os.write(writable, b"held\n")
        time.sleep(1000)

    def wait() -> None:
        with lock.repair():
            os.write(writable, b"%d\n" % inside())

    with open(readable) as said:
        holder = _child(hold)
        said.readline()
        heirs = []
        for number in range(waiters):
            heirs.append(_child(wait))
            while lock.waiters <= number:
                time.sleep(0.0005)
        time.sleep(random.uniform(0.002, LONGEST_PAUSE_S))
        began = time.monotonic_ns()
        os.kill(holder, signal.SIGKILL)
        took = int(said.readline()) - began
        for pid in (holder, *heirs):
            os.waitpid(pid, 0)
        os.close(writable)
    return took / 1e6


def measure(times: int, waiters: int) -> Row:
    """So many kills, in this process's slow path."""
    with pylocks.Domain() as domain:
        lock = pylocks.TicketLock(domain=domain)
        return Row(domain.slow_path, waiters, tuple(_succession(lock, waiters) for _ in range(times)))


def _elsewhere(slow_path: str, times: int, waiters: int) -> Row:
    """measure() in a process that waits in this way."""
    setting = Setting(slow_path, {"PYLOCKS_OPS": f"lock_spinning={slow_path}"})
    done = subprocess.run(
        [sys.executable, "-m", "pylocks.bench.death", "--here", "--kills", str(times), "--waiters", str(waiters)],
        env=setting.environment(),
        stdout=subprocess.PIPE,
        check=True,
    )
    said = json.loads(done.stdout)
    return Row(said["slow_path"], said["waiters"], tuple(said["samples_ms"]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m pylocks.bench.death", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--kills", type=int, default=100, help="kills for each row (100)")
    parser.add_argument("--waiters", type=int, nargs="+", default=[1, 8], help="processes that wait (1 8)")
    parser.add_argument("--json", type=Path, help="write all samples into this file")
    parser.add_argument(
        "--here", action="store_true", help="in this process, as JSON, the first of --waiters"
    )
    options = parser.parse_args()
    if options.here:
        print(json.dumps(asdict(measure(options.kills, options.waiters[0]))))
        return
    print(HEADING)
    rows = []
    for slow_path in SLOW_PATHS:
        for waiters in options.waiters:
            rows.append(_elsewhere(slow_path, options.kills, waiters))
            print(rows[-1], flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
