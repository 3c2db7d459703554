"""Where the contract is played: one process, one slow path, one kind of participant.

    python -m support.stage KIND CPUS POLICY FOLDER

reads names of checks from standard input, runs each and answers with a line of JSON: null if it holds,
else the traceback.  PYLOCKS_OPS and PYLOCKS_PATCH choose the slow path: a process is patched once, so
each combination has a process of its own, which serves all checks with one lock and the same puppets.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import pylocks
from support.puppet import KINDS, Troupe, troupe
from support.tasks import Tally
from support.wait import PATIENCE_S, until


@dataclass(frozen=True)
class Stage:
    """What a check has to work with."""

    lock: pylocks.TicketLock
    troupe: Troupe
    folder: Path
    numbers: Iterator[int] = field(default_factory=count)

    @property
    def native(self) -> bool:
        """The protocol is the native one."""
        return self.lock.domain.protocol == "native"

    def tally(self) -> tuple[Tally, str]:
        """A new shared count, and the path by which puppets find it."""
        path = self.folder / f"tally{next(self.numbers)}"
        return Tally.create(path), str(path)

    def flag(self) -> Path:
        """A file that does not exist yet."""
        return self.folder / f"flag{next(self.numbers)}"

    def parked(self) -> int:
        """Threads that sleep for the lock."""
        return sum(
            v.parked and v.waiting_for in (self.lock.index, *self.standby) for v in self.lock.domain.vcpus()
        )

    @property
    def bounded(self) -> bool:
        """The lock's policy is the bounded one."""
        return self.lock.policy == "bounded"

    @property
    def standby(self) -> tuple[None, ...]:
        """What the first in the queue of a bounded lock is seen to wait for: it has no ticket then."""
        return (None,) if self.bounded else ()

    def usable(self) -> None:
        """Nobody has it, nobody waits, and everybody can have it."""
        until(lambda: not self.lock.locked(), "the lock to be free")
        assert self.lock.owner is None
        if self.bounded:  # whose gate may be free while the dead are in the queue
            until(self._nobody_waits, "the dead in the queue to be found")
        assert self.lock.waiters == 0
        for blocking in (False, True):
            assert self.lock.acquire(blocking) is True
            self.lock.release()
        assert not self.lock.locked()

    def _nobody_waits(self) -> bool:
        """As seen by one who comes and goes."""
        with self.lock:
            pass
        return self.lock.waiters == 0


@contextmanager
def handler(number: int, action: Callable[[], object]) -> Iterator[None]:
    """Run `action` at each signal of that number."""
    before = signal.signal(number, lambda *_: action())
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def busy_thread() -> Iterator[list[int]]:
    """A thread that computes in Python all the time; [0] counts what it has done."""
    done, end = [0], threading.Event()

    def compute() -> None:
        while not end.is_set():
            for _ in range(1000):
                done[0] += 1

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield done
    finally:
        end.set()
        thread.join()


def play(check: str, stage: Stage) -> str | None:
    """Run one check; what is wrong, with the variables of every frame, or None."""
    from support.contract import CHECKS

    faulthandler.dump_traceback_later(PATIENCE_S + 10, exit=True)
    try:
        with stage.troupe.act():
            CHECKS[check].run(stage)
    except BaseException as error:
        return "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    finally:
        faulthandler.cancel_dump_traceback_later()
    return None


def main(kind: str, cpus: str, policy: str, folder: str) -> None:
    """Serve checks until standard input ends."""
    assert kind in KINDS
    if cpus == "one":
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    signal.signal(signal.SIGINT, signal.default_int_handler)
    lock = pylocks.TicketLock(policy=policy)
    hosted = lock.domain.slow_path == "hosted"  # which is `futex` without a service
    served = pylocks.Hypervisor(lock.domain) if hosted else nullcontext()
    with served, troupe(kind, lock) as made, tempfile.TemporaryDirectory(dir=folder) as room:
        stage = Stage(lock, made, Path(room))
        for line in sys.stdin:
            print(json.dumps(play(line.strip(), stage)), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
