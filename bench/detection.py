"""What it costs to look for deadlocks, and how soon one is told of: python -m bench.detection.

- throughput: processes that do nothing but `with lock`, in a domain that detects and in one that does not,
  in turns; and one alone, which never waits.  One ratio a round.
- order: the same alone, where `check_order` looks at each acquisition, with no lock held and inside another.
- times: from the moment at which two programs want each other's lock until one has its DeadlockError; and
  until `pylocks deadlocks` has said so, from its start, where they are not told.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

import pylocks

__all__ = ["main"]

CROWDS = (1, 2, 8, 32)
POLICIES = ("fifo", "bounded")
ALONE_PAIRS = 20_000

PROGRAM = """
import sys, time, pylocks
name, first, second = sys.argv[1:4]
domain = pylocks.Domain(name)
with domain.lock(first):
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.monotonic()
    try:
        with domain.lock(second):
            print("entered", flush=True)
    except pylocks.DeadlockError:
        print(f"told {time.monotonic() - began}", flush=True)
"""


@dataclass(frozen=True)
class Row:
    """One comparison: what was measured, and a ratio (with to without) or a time for each round."""

    what: str
    unit: str
    samples: list[float]

    def __str__(self) -> str:
        low, _, high = quantiles(self.samples, n=4)
        return f"{self.what:45} {median(self.samples):8.3f} ({low:.3f} to {high:.3f}) {self.unit}"


def crowd(lock: pylocks.TicketLock, count: int, seconds: float) -> tuple[float, float]:
    """How often so many processes together have had the lock in that time, and CPU seconds for each time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    readable, writable = os.pipe()
    children = []
    for _ in range(count):
        pid = os.fork()
        if pid == 0:
            done, end = 0, time.monotonic() + seconds
            while time.monotonic() < end:
                for _ in range(20):
                    with lock:
                        done += 1
            os.write(writable, done.to_bytes(8, "little"))
            os._exit(0)
        children.append(pid)
    os.close(writable)
    with open(readable, "rb") as pipe:
        data = pipe.read()
    for pid in children:
        os.waitpid(pid, 0)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    had = sum(int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8))
    return had, cpu / had


def pairs(lock: pylocks.TicketLock) -> tuple[float, ...]:
    """ns for one `with lock` that nobody else wants."""
    began = time.perf_counter_ns()
    for _ in range(ALONE_PAIRS):
        with lock:
            pass
    return ((time.perf_counter_ns() - began) / ALONE_PAIRS,)


Measure = Callable[[], tuple[float, ...]]


def in_turns(rounds: int, first: Measure, second: Measure) -> list[list[float]]:
    """first / second of each figure, a round each; who begins alternates."""
    ratios = []
    for turn in range(rounds):
        if turn % 2:
            below, above = second(), first()
        else:
            above, below = first(), second()
        ratios.append([a / b for a, b in zip(above, below, strict=True)])
    return [list(each) for each in zip(*ratios, strict=True)]


def throughput(rounds: int, seconds: float) -> list[Row]:
    """What detection costs; "the same" is a second domain without it, and shows the noise."""
    rows = []
    with pylocks.Domain(detect_deadlocks=True) as on, pylocks.Domain() as off, pylocks.Domain() as same:
        for policy in POLICIES:
            locks = {domain: pylocks.TicketLock(domain=domain, policy=policy) for domain in (on, off, same)}
            for count in CROWDS:
                for domain, what in ((on, "detecting"), (same, "the same")):
                    had, cpu = in_turns(
                        rounds,
                        lambda n=count, lock=locks[domain]: crowd(lock, n, seconds),
                        lambda n=count, lock=locks[off]: crowd(lock, n, seconds),
                    )
                    rows.append(Row(f"{what}, {count} {policy}: throughput", "of that without", had))
                    rows.append(Row(f"{what}, {count} {policy}: CPU time for each", "of that without", cpu))
    return rows


def order(rounds: int) -> list[Row]:
    """What check_order costs."""
    with pylocks.Domain(check_order=True) as on, pylocks.Domain() as off:
        inner, outer, plain = on.lock("inner"), on.lock("outer"), off.lock("plain")
        (alone,) = in_turns(rounds, lambda: pairs(inner), lambda: pairs(plain))
        with outer:
            (nested,) = in_turns(rounds, lambda: pairs(inner), lambda: pairs(plain))
        return [
            Row("a pair with check_order", "of one without", alone),
            Row("the same inside another lock", "of one without", nested),
        ]


def clash(name: str) -> list[subprocess.Popen[str]]:
    """Two programs, each with one lock, that have just been told to take the other's."""
    programs = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", PROGRAM, name, *pair],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for pair in (("left", "right"), ("right", "left"))
    ]  # fmt: skip
    for program in programs:
        assert program.stdout is not None and program.stdout.readline() == "ready\n"
    for program in programs:
        assert program.stdin is not None
        program.stdin.write("\n")
        program.stdin.flush()
    return programs


def times(rounds: int) -> list[Row]:
    """How soon a deadlock of two programs is told of."""
    told, reported = [], []
    warnings.simplefilter("ignore", pylocks.OwnerDiedWarning)  # of programs that were killed to end them
    name = f"bench-detection-{os.getpid()}"
    try:
        for _ in range(rounds):
            with pylocks.Domain(name, detect_deadlocks=True):
                programs = clash(name)
                said = sorted(program.communicate()[0].strip() for program in programs)
            assert said[0] == "entered" and said[1].startswith("told ")
            told.append(float(said[1].split()[1]) * 1e3)
            with pylocks.Domain(name, detect_deadlocks=False):
                programs = clash(name)
                began = time.monotonic()
                while True:
                    done = subprocess.run(
                        [sys.executable, "-m", "pylocks", "deadlocks", name, "--json"],
                        capture_output=True, check=False,
                    )  # fmt: skip
                    if done.returncode == 1:
                        break
                reported.append((time.monotonic() - began) * 1e3)
                found: Any = json.loads(done.stdout)[0]["members"]
                assert {member["pid"] for member in found} == {program.pid for program in programs}
                assert {member["holds"] for member in found} == {"left", "right"}
                for program in programs:
                    program.send_signal(signal.SIGKILL)
                    program.communicate()
    finally:
        pylocks.Domain(name).unlink()
    return [
        Row("two programs, until DeadlockError", "ms", told),
        Row("two programs, until pylocks deadlocks says so", "ms", reported),
    ]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.detection", description=__doc__.split(":")[0])
    parser.add_argument("--rounds", type=int, default=21, metavar="N")
    parser.add_argument("--seconds", type=float, default=0.3, metavar="S", help="of each slice")
    parser.add_argument("--json", metavar="FILE", help="write all samples there")
    given = parser.parse_args()
    if given.rounds < 2 or not given.seconds > 0:
        parser.error("two rounds at least, of more than no time")
    rows = []
    for measure in (
        lambda: throughput(given.rounds, given.seconds),
        lambda: order(given.rounds),
        lambda: times(given.rounds),
    ):
        for row in measure():
            rows.append(row)
            print(row, flush=True)
    if given.json:
        with open(given.json, "w") as file:
            json.dump([asdict(row) for row in rows], file, indent=1)


if __name__ == "__main__":
    main()
