"""What `pylocks top` costs those whom it looks at.

    python -m bench.observing                 # 8 processes on 8 locks, 20 pairs of slices
    python -m bench.observing --processes 2 --locks 1 --pairs 50

Processes acquire and release locks of one domain all the time.  A top, full screen on a pseudo
terminal and at its default rate, is stopped (SIGSTOP) in one slice of each pair and runs in the
other, in turns first and second.  What is printed is the median over the pairs of the ratio of
their throughputs, with its quartiles, and the CPU time that top took for each second.
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
def workers(domain: pylocks.Domain, processes: int, locks: int) -> Iterator[memoryview]:
    """So many processes at work; their counters."""
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
        yield counters
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

    def cpu_s(self) -> float:
        """CPU time so far."""
        times = psutil.Process(self._process.pid).cpu_times()
        return float(times.user + times.system)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        os.close(self._screen)


def measure(processes: int, locks: int, pairs: int, seconds: float) -> tuple[list[float], float, float]:
    """(ratios of throughput with a top to that without, acquisitions/s without, CPU time of top for 1 s)."""
    name = f"observing-{os.getpid()}-{secrets.token_hex(4)}"
    domain = pylocks.Domain(name)
    ratios, plain, cpu = [], [], 0.0
    try:
        with workers(domain, processes, locks) as counters:
            top = Top(name)
            try:
                for pair in range(pairs):
                    rates = {}
                    for watched in ((True, False), (False, True))[pair % 2]:
                        used = top.cpu_s()
                        rates[watched] = _slice(counters, top, watched, seconds)
                        cpu += top.cpu_s() - used
                    ratios.append(rates[True] / rates[False])
                    plain.append(rates[False])
            finally:
                top.close()
    finally:
        domain.unlink()
        domain.close()
    return ratios, median(plain), cpu / (pairs * seconds)


def _slice(counters: memoryview, top: Top, watched: bool, seconds: float) -> float:
    if watched:
        top.go()
    step = WORDS // 8
    start, began = sum(counters[::step].tolist()), time.perf_counter()
    time.sleep(seconds)
    done, elapsed = sum(counters[::step].tolist()) - start, time.perf_counter() - began
    top.pause()
    return done / elapsed


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
    ratios, rate, cpu = measure(options.processes, options.locks, options.pairs, options.seconds)
    print(f"{options.processes} processes, {options.locks} locks: {rate:,.0f} acquisitions/s unobserved")
    print(f"throughput with top to that without: {spread(ratios, 4)}")
    print(f"CPU time of top: {1000 * cpu:.1f} ms for each second, {os.cpu_count()} CPUs")


if __name__ == "__main__":
    main()
