"""Processes and threads add samples to the same moments; the sums are those of one who adds them all."""

import array
import multiprocessing
import random
import statistics
import threading

import moments

import pylocks


def samples(seed, n):
    """What one thread adds."""
    numbers = random.Random(seed)
    return array.array("d", (numbers.gauss(10, 2) for _ in range(n)))


def work(lock, state, seeds, n):
    """Two threads add n samples each."""
    common = moments.Moments(lock, state)
    threads = [threading.Thread(target=common.add, args=(samples(seed, n),)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def main(processes=4, n=20_000):
    """Run it, and compare."""
    lock = pylocks.TicketLock()
    state = multiprocessing.RawArray("d", 3)
    children = [
        multiprocessing.Process(target=work, args=(lock, state, (2 * i, 2 * i + 1), n))
        for i in range(processes)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join()
    everything = [x for seed in range(2 * processes) for x in samples(seed, n)]
    found = moments.Moments(lock, state)
    print(f"{int(state[0])} samples of {len(everything)}")
    print(f"mean {state[1]:.6f}, should be {statistics.fmean(everything):.6f}")
    print(f"variance {found.variance:.6f}, should be {statistics.pvariance(everything):.6f}")


if __name__ == "__main__":
    main()
