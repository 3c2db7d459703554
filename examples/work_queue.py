"""A queue of jobs whose workers may be killed at any time: every job gets done.

A worker holds a lock of its own for each job, the job's claim, as long as it works on it.  If it dies, the
claim is free again, and the next worker that looks for something to do finds it: the job was begun, it is
not done, and nobody holds its claim.  What the job has done so far is unknown, so it is begun anew; that is
the program's own part of the recovery, and the reason why pylocks tells of deaths.

Workers die for real here: `--kills` of them are killed by SIGKILL, and replaced.

    python examples/work_queue.py
    python examples/work_queue.py --jobs 5000 --workers 8 --kills 100
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import random
import signal
import sys
import warnings
from multiprocessing.connection import wait

import pylocks

DONE = 1
RESULT = 32
"""Bytes."""


class Jobs:
    """A table of jobs in shared memory, for the processes that are given this object."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.lock = pylocks.TicketLock()
        """For `front`, and for the search for a job."""
        self.claims = pylocks.LockArray(count)
        self.state = multiprocessing.RawArray("B", count)
        self.begun = multiprocessing.RawArray("I", count)
        self.results = multiprocessing.RawArray("c", count * RESULT)
        self.front = multiprocessing.RawArray(
            "I", 2
        )  # all jobs before [0] are done, none from [1] on is begun

    def take(self) -> int | None:
        """A job to do, which this thread then holds the claim of; None if all are done."""
        while True:
            with self.lock:
                # If its holder has died, then between two whole steps: each of them is a single store, in
                # an order that leaves nothing out.
                if self.lock.owner_died:
                    self.lock.mark_consistent()
                while self.front[0] < self.front[1] and self.state[self.front[0]] == DONE:
                    self.front[0] += 1
                first, new = self.front
                for job in range(first, min(new + 1, self.count)):
                    if self.state[job] != DONE and self.claims.acquire(job, blocking=False):
                        if self.state[job] != DONE:
                            self.front[1] = max(new, job + 1)
                            return job
                        self.claims.release(job)  # its worker has just finished
            if first == self.count:
                return None
            # All are in somebody's hands: wait for the oldest, which is either done then or ours.
            self.claims.acquire(first)
            self.claims.release(first)

    def finish(self, job: int, result: bytes) -> None:
        """The result of a job that was taken."""
        self.results[job * RESULT : (job + 1) * RESULT] = result
        self.state[job] = DONE  # after the result: whoever is killed before has not done it
        claim = self.claims[job]
        if claim.owner_died:  # somebody before us
            claim.mark_consistent()
        claim.release()


def do(job: int) -> bytes:
    """The work: some 2 ms of it."""
    return hashlib.pbkdf2_hmac("sha256", b"work", str(job).encode(), 2000)


def work(jobs: Jobs) -> None:
    """A worker's life."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    warnings.simplefilter("ignore", pylocks.OwnerDiedWarning)  # Jobs looks for itself
    while (job := jobs.take()) is not None:
        jobs.begun[job] += 1
        jobs.finish(job, do(job))


def main() -> int:
    parser = argparse.ArgumentParser(description="A work queue whose workers may be killed.")
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--kills", type=int, default=8, help="workers to kill meanwhile")
    parser.add_argument("--seed", type=int, default=1, help="decides who is killed")
    given = parser.parse_args()

    jobs, choose, kills = Jobs(given.jobs), random.Random(given.seed), 0
    workers = [multiprocessing.Process(target=work, args=(jobs,)) for _ in range(given.workers)]
    try:
        for process in workers:
            process.start()
        print(f"{given.workers} workers for {given.jobs} jobs; Ctrl-C ends them", flush=True)
        while any(process.exitcode != 0 for process in workers):
            wait([process.sentinel for process in workers if process.is_alive()], timeout=0.01)
            done = sum(jobs.state)
            if kills < given.kills and done >= given.jobs * (kills + 1) // (given.kills + 2):
                choose.choice(workers).kill()
                kills += 1
            for i, process in enumerate(workers):
                if process.exitcode:  # killed; 0: there is nothing left to do
                    workers[i] = multiprocessing.Process(target=work, args=(jobs,))
                    workers[i].start()
    except KeyboardInterrupt:
        for process in multiprocessing.active_children():
            process.terminate()
            process.join()
        return 130

    right = sum(jobs.results[i * RESULT : (i + 1) * RESULT] == do(i) for i in range(given.jobs))
    again = sum(times > 1 for times in jobs.begun)
    print(f"{kills} workers killed; {right} of {given.jobs} jobs done, {again} of them begun more than once")
    return 0 if right == given.jobs else 1


if __name__ == "__main__":
    sys.exit(main())
