"""What a hypervisor service brings, and what its death costs: python -m bench.service.

Two experiments, each way of waiting in an interpreter of its own:

- deaths: a process that holds a lock is killed with SIGKILL while another waits; the time runs from just
  before the kill until the other is inside, with a pylocks.Hypervisor and without;
- takeover: processes fight over one lock with lock_spinning=hosted, while the service is killed again and
  again, with another waiting to take over.  Exclusion is verified, and every wait is timed.

With --spin another one instead: what it brings when waiters are told not to spin (bench/spin.py).
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import pylocks
from bench import spin
from pylocks.bench.arena import child

__all__ = ["main"]

ROOT = Path(__file__).resolve().parent.parent
MS = 1_000_000
WORD = 8
SETTLE_S = (0.005, 0.035)
"""The kill comes at any time of a waiter's watchdog, which is 30 ms."""
WAYS = (("futex", False), ("futex", True), ("hosted", True))
"""(slow path, with a service)"""


def _number(descriptor: int) -> int:
    return int.from_bytes(os.read(descriptor, WORD), sys.byteorder)


def _say(descriptor: int, number: int) -> None:
    os.write(descriptor, number.to_bytes(WORD, sys.byteorder))


def _succession(lock: pylocks.TicketLock, chance: random.Random) -> float:
    """ms from the kill of a holder until the next is inside."""
    readable, writable = os.pipe()

    def hold() -> None:
        lock.acquire()
        _say(writable, 0)
        time.sleep(1000)

    def wait() -> None:
        warnings.simplefilter("ignore", pylocks.OwnerDiedWarning)
        _say(writable, 0)
        lock.acquire()
        inside = time.monotonic_ns()
        lock.mark_consistent()
        lock.release()
        _say(writable, inside)

    holder = child(hold)
    _number(readable)
    waiter = child(wait)
    _number(readable)
    time.sleep(chance.uniform(*SETTLE_S))
    began = time.monotonic_ns()
    os.kill(holder, signal.SIGKILL)
    inside = _number(readable)
    for pid in (holder, waiter):
        os.waitpid(pid, 0)
    os.close(readable)
    os.close(writable)
    return (inside - began) / MS


def deaths(kills: int, served: bool, seed: int) -> dict[str, Any]:
    """So many kills; ms each."""
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain)
    chance = random.Random(seed)
    with pylocks.Hypervisor(domain) if served else nullcontext():
        return {"ms": [_succession(lock, chance) for _ in range(kills)]}


class Fight:
    """Processes on one lock; each has two words: acquisitions and its longest wait, ns."""

    def __init__(self, processes: int) -> None:
        self.domain = pylocks.Domain()
        self.lock = pylocks.TicketLock(domain=self.domain)
        self._map = mmap.mmap(-1, (2 * processes + 4) * WORD)
        self.words = memoryview(self._map).cast("Q")
        self.counter, self.inside, self.violations, self.stop = range(2 * processes, 2 * processes + 4)
        self.pids = [child(lambda number=number: self._worker(number)) for number in range(processes)]

    def _worker(self, number: int) -> None:
        words, lock, me = self.words, self.lock, number + 1
        while not words[self.stop]:
            asked = time.monotonic_ns()
            lock.acquire()
            waited = time.monotonic_ns() - asked
            if words[self.inside]:
                words[self.violations] += 1
            words[self.inside] = me
            words[self.counter] += 1
            if words[self.inside] != me:
                words[self.violations] += 1
            words[self.inside] = 0
            lock.release()
            words[2 * number] += 1
            if waited > words[2 * number + 1]:
                words[2 * number + 1] = waited

    def end(self) -> dict[str, Any]:
        """Let them leave; what they have counted."""
        self.words[self.stop] = 1
        for pid in self.pids:
            os.waitpid(pid, 0)
        own = self.words[: 2 * len(self.pids)].tolist()
        return {
            "acquisitions": sum(own[::2]),
            "violations": self.words[self.violations] + (self.words[self.counter] != sum(own[::2])),
            "longest_wait_ms": max(own[1::2]) / MS,
        }


def takeover(kills: int, processes: int, pause_s: float) -> dict[str, Any]:
    """Kill the service so often; ms until another serves, and what the fighters saw."""
    fight = Fight(processes)
    services = [pylocks.Hypervisor(fight.domain, wait=True) for _ in range(2)]
    for service in services:
        service.start()
    times = []
    for _ in range(kills):
        time.sleep(pause_s)
        victim = services[0].pid
        assert victim is not None
        began = time.monotonic_ns()
        os.kill(victim, signal.SIGKILL)
        while services[0].pid in (None, victim):
            time.sleep(0.0002)
        times.append((time.monotonic_ns() - began) / MS)
        while all(service.running for service in services):
            time.sleep(0.0002)  # its life word is marked before it has ended
        next(service for service in services if not service.running).start()
    time.sleep(pause_s)
    result = fight.end()
    for service in services:
        service.stop()
    return result | {"ms": times}


def _elsewhere(slow_path: str, *arguments: str) -> dict[str, Any]:
    """This program in an interpreter that waits so."""
    environment = os.environ | {
        "PYLOCKS_OPS": f"lock_spinning={slow_path}",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    command = [sys.executable, "-m", "bench.service", *arguments]
    said = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, cwd=ROOT).stdout
    found: dict[str, Any] = json.loads(said)
    return found


def _tail(samples: Sequence[float], share: float) -> float:
    return sorted(samples)[min(len(samples) - 1, int(share * len(samples)))]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run both and print their tables; 1 if exclusion was violated."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=100, help="of holders, for each way (default: 100)")
    parser.add_argument("--service-kills", type=int, default=20, help="of the service (default: 20)")
    parser.add_argument("--processes", type=int, default=8, help="that fight over the lock (default: 8)")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between kills of the service")
    parser.add_argument("--spin", action="store_true", help="measure its spin policy instead")
    parser.add_argument("--rounds", type=int, default=9, help="of that, for each load (default: 9)")
    parser.add_argument("--json", action="store_true", help="the samples, on standard output")
    parser.add_argument("--part", choices=("deaths", "served-deaths", "takeover"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.spin:
        return spin.run(given.rounds, given.json)
    if given.part == "takeover":
        print(json.dumps(takeover(given.service_kills, given.processes, given.pause)))
        return 0
    if given.part is not None:
        print(json.dumps(deaths(given.kills, given.part == "served-deaths", 1)))
        return 0
    found = {
        f"{slow_path}{', service' if served else ''}": _elsewhere(
            slow_path, "--part", "served-deaths" if served else "deaths", "--kills", str(given.kills)
        )["ms"]
        for slow_path, served in WAYS
    }
    fight = _elsewhere(
        "hosted",
        *("--part", "takeover", "--service-kills", str(given.service_kills)),
        *("--processes", str(given.processes), "--pause", str(given.pause)),
    )
    if given.json:
        print(json.dumps({"deaths_ms": found, "takeover": fight}))
        return 1 if fight["violations"] else 0
    print(f"holder killed, until the next is inside, ms ({given.kills} kills, {os.cpu_count()} CPUs)")
    for name, samples in found.items():
        p90, longest = _tail(samples, 0.9), max(samples)
        print(f"  {name:<16} median {median(samples):6.2f}  p90 {p90:6.2f}  max {longest:6.2f}")
    print(f"service killed {given.service_kills} times, {given.processes} processes on one lock, hosted")
    print(f"  until another serves, ms: median {median(fight['ms']):.2f}  max {max(fight['ms']):.2f}")
    print(
        f"  longest wait {fight['longest_wait_ms']:.1f} ms of {fight['acquisitions']:,} acquisitions, "
        f"{fight['violations']} violations"
    )
    return 1 if fight["violations"] else 0


if __name__ == "__main__":
    sys.exit(main())
