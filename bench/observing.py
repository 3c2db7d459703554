"""What `pylocks top` costs those whom it looks at.

    python -m bench.observing                 # 8 processes on 8 locks, 20 pairs of slices
    python -m bench.observing --processes 2 --locks 1 --pairs 50

Processes acquire and release locks of one domain all the time.  A top, full screen on a pseudo
terminal and at its default rate, is stopped (SIGSTOP) in one slice of each pair and runs in the
other, in turns first and second.  What is printed are the ratios of their throughputs, and of
acquisitions for a second of the processes' own CPU time, which does not depend on what else the
machine does; and the CPU time that top took, which is what it takes from others on a busy machine.
When it goes on it draws at once, so it draws oftener here than it would by itself.
"""

from __future__ import annotations

import argparse
import fcntl
import mmap
import os
import pty
import random
import secrets
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median

import psutil

import pylocks
from bench.preempted import spread

WORDS = 64
"""Bytes between two counters: a cache line."""


def work(domain: pylocks.Domain, locks: int, seed: int, counter: memoryview) -> None:
    """Until it is killed: short critical sections, and as long outside."""
    chosen = [domain.lock(f"lock-{n}") for n in range(locks)]
    choose = random.Random(seed)
    done = 0
    while True:
        lock = chosen[choose.randrange(locks)]
        for _ in range(64):
            with lock:
                done += 1
            counter[0] = done


@contextmanager
def workers(domain: pylocks.Domain, processes: int, locks: int) -> Iterator[tuple[memoryview, list[int]]]:
    """So many processes at work: their counters and pids."""
    shared = mmap.mmap(-1, processes * WORDS)
    counters = memoryview(shared).cast("Q")
    pids = []
    try:
        for number in range(processes):
            pid = os.fork()
            if pid == 0:
                try:
                    work(domain, locks, number, counters[number * WORDS // 8 :])
                finally:
                    os._exit(1)
            pids.append(pid)
        yield counters, pids
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


class Top:
    """A `pylocks top` of one domain on a pseudo terminal, stopped unless it is to run."""

    def __init__(self, name: str) -> None:
        self._screen, inner = pty.openpty()
        fcntl.ioctl(inner, termios.TIOCSWINSZ, b"\x32\x00\x78\x00\x00\x00\x00\x00")  # 50 lines of 120
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pylocks", "top", name], stdin=inner, stdout=inner, stderr=inner
        )
        os.close(inner)
        self.pid = self._process.pid
        self.drawn = 0
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        while self.drawn == 0 and self._process.poll() is None:
            time.sleep(0.01)
        self.pause()

    def _read(self) -> None:
        try:
            while data := os.read(self._screen, 1 << 16):
                self.drawn += len(data)
        except OSError:
            pass  # it has ended

    def pause(self) -> None:
        """Stop it."""
        self._process.send_signal(signal.SIGSTOP)

    def go(self) -> None:
        """Let it run."""
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        os.close(self._screen)


@dataclass(frozen=True)
class Slice:
    """What the workers did in so much time."""

    acquisitions: int
    seconds: float
    cpu_s: float
    """CPU time that they used for it."""
    top_cpu_s: float

    @property
    def rate(self) -> float:
        """Acquisitions a second."""
        return self.acquisitions / self.seconds

    @property
    def thrift(self) -> float:
        """Acquisitions for a second of CPU time: the same however much others take of it."""
        return self.acquisitions / self.cpu_s


def cpu_s(pids: list[int]) -> float:
    """CPU time that the processes have used so far."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(each.user + each.system for each in times))


def measure(processes: int, locks: int, pairs: int, seconds: float) -> list[tuple[Slice, Slice]]:
    """Pairs of slices: with a top that runs, and without."""
    name = f"observing-{os.getpid()}-{secrets.token_hex(4)}"
    domain = pylocks.Domain(name)
    result = []
    try:
        with workers(domain, processes, locks) as (counters, pids):
            top = Top(name)
            try:
                for pair in range(pairs):
                    found = {
                        watched: _slice(counters, pids, top, watched, seconds)
                        for watched in ((True, False), (False, True))[pair % 2]
                    }
                    result.append((found[True], found[False]))
            finally:
                top.close()
    finally:
        domain.unlink()
        domain.close()
    return result


def _slice(counters: memoryview, pids: list[int], top: Top, watched: bool, seconds: float) -> Slice:
    def now() -> tuple[int, float, float, float]:
        done = sum(counters[:: WORDS // 8].tolist())
        return done, time.perf_counter(), cpu_s(pids), cpu_s([top.pid])

    before = now()
    if watched:
        top.go()
    time.sleep(seconds)
    after = now()
    top.pause()
    return Slice(*(b - a for a, b in zip(before, after, strict=True)))  # type: ignore[arg-type]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.observing", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--processes", type=int, default=8, help="that use locks (8)")
    parser.add_argument("--locks", type=int, default=8, help="that they use (8)")
    parser.add_argument("--pairs", type=int, default=20, help="of slices (20)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a slice (4)")
    options = parser.parse_args()
    slices = measure(options.processes, options.locks, options.pairs, options.seconds)
    rate = median(without.rate for _, without in slices)
    top = sum(watched.top_cpu_s for watched, _ in slices) / sum(watched.seconds for watched, _ in slices)
    print(f"{options.processes} processes, {options.locks} locks: {rate:,.0f} acquisitions/s unobserved")
    print("with top to without, median [quartiles]:")
    print(f"  acquisitions/s           {spread([on.rate / off.rate for on, off in slices], 4)}")
    print(f"  acquisitions/CPU second  {spread([on.thrift / off.thrift for on, off in slices], 4)}")
    print(f"CPU time of top: {1000 * top:.1f} ms for each second, {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
