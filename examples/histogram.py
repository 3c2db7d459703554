"""A histogram in shared memory that many processes fill: under one lock, and under a lock for each row.

    python histogram.py --processes 4 --rows 64

Needs NumPy.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time

import numpy as np

import pylocks

COLUMNS = 4096
SAMPLES = 1024
"""In a batch; those of one batch fall into one row."""
BATCHES = 100
"""Different ones, for each process; it adds them again and again."""


def batches(seed: int, rows: int):
    """(row, histogram of a batch), the same for the same seed."""
    numbers = np.random.default_rng(seed)
    for _ in range(BATCHES):
        row, columns = int(numbers.integers(rows)), numbers.integers(COLUMNS, size=SAMPLES)
        yield row, np.bincount(columns, minlength=COLUMNS)


def work(locks, memory, seed, rounds, start, times) -> None:
    """What each process does. Row r is protected by locks[r % len(locks)]."""
    counts = np.frombuffer(memory, dtype=np.int64).reshape(-1, COLUMNS)
    mine = list(batches(seed, len(counts)))
    start.wait()
    begin = time.monotonic()
    for _ in range(rounds):
        for row, found in mine:
            with locks[row % len(locks)]:
                counts[row] += found
    times.put((begin, time.monotonic()))


def fill(stripes: int, processes: int, rows: int, rounds: int):
    """The histogram, filled with so many locks; and how many batches a second were added."""
    locks = pylocks.LockArray(stripes)
    memory = multiprocessing.RawArray("q", rows * COLUMNS)
    start, times = multiprocessing.Barrier(processes), multiprocessing.SimpleQueue()
    children = [
        multiprocessing.Process(target=work, args=(locks, memory, seed, rounds, start, times))
        for seed in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    spans = [times.get() for _ in children]
    locks.close()
    seconds = max(end for _, end in spans) - min(begin for begin, _ in spans)
    counts = np.frombuffer(memory, dtype=np.int64).reshape(rows, COLUMNS)
    return counts, processes * rounds * BATCHES / seconds


def main() -> None:
    """Fill it twice, and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=200, help="for each process, of 100 batches")
    options = parser.parse_args()
    right = np.zeros((options.rows, COLUMNS), dtype=np.int64)
    for seed in range(options.processes):
        for row, found in batches(seed, options.rows):
            right[row] += options.rounds * found
    for stripes, name in ((1, "one lock"), (options.rows, "a lock a row")):
        counts, rate = fill(stripes, options.processes, options.rows, options.rounds)
        if not np.array_equal(counts, right):
            raise SystemExit(f"{name}: the histogram is wrong")
        print(f"{name:>12}: {rate:8,.0f} batches a second, {counts.sum():,} samples, all counted")


if __name__ == "__main__":
    main()
