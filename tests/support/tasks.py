"""What puppets are told to do.  The first argument of each is the puppet's lock."""

from __future__ import annotations

import faulthandler
import mmap
import os
import pickle
import random
import resource
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

from pylocks import ClosedError, Domain, DomainBusyError, LockArray, TicketLock
from support.run import alive
from support.wait import until


class Tally:
    """A number in a file that all puppets map; adding to it is deliberately not atomic."""

    def __init__(self, path: str) -> None:
        with open(path, "r+b") as file:
            self._map = mmap.mmap(file.fileno(), 8)

    @classmethod
    def create(cls, path: Path) -> Tally:
        """A new one, at 0."""
        path.write_bytes(bytes(8))
        return cls(str(path))

    @property
    def value(self) -> int:
        """What it counts now."""
        return int.from_bytes(self._map[:8], "little")

    def add(self, pause: float | None = 1e-5) -> int:
        """Add 1 in two steps, far enough apart that nobody may come between; the value before."""
        before = self.value
        if pause is not None:
            time.sleep(pause)  # lets every other thread and process run
        self._map[:8] = (before + 1).to_bytes(8, "little")
        return before


def acquire(lock: TicketLock, blocking: bool = True, timeout: float | None = None) -> bool:
    """The outcome of acquire()."""
    return lock.acquire(blocking, timeout)


def release(lock: TicketLock) -> None:
    """release()."""
    lock.release()


def look(lock: TicketLock, attribute: str) -> Any:
    """An attribute of the lock."""
    return getattr(lock, attribute)


def native_id(lock: TicketLock) -> int:
    """The puppet's kernel thread."""
    return threading.get_native_id()


def visit(lock: TicketLock, path: str) -> tuple[int, int]:
    """(position, ticket) of one acquisition: how many entered before, and the lock's own count."""
    tally = Tally(path)
    with lock:
        return tally.add(None), lock.ticket


def laps(lock: TicketLock, path: str, times: int) -> list[tuple[int, int]]:
    """visit(), again and again."""
    tally = Tally(path)
    found = []
    for _ in range(times):
        with lock:
            found.append((tally.add(), lock.ticket))
    return found


def restless(lock: TicketLock, path: str, times: int, seed: int) -> int:
    """Try with timeouts so short that many come just when the turn does; how often it entered."""
    tally, chance = Tally(path), random.Random(seed)
    entered = 0
    for _ in range(times):
        if lock.acquire(timeout=chance.choice((1e-9, 1e-6, 2e-5, 1e-4, 1e-3))):
            tally.add(chance.choice((None, 1e-6, 5e-5)))
            entered += 1
            lock.release()
    return entered


def poll(lock: TicketLock, path: str, timeout: float, last: float) -> tuple[int, int]:
    """visit() by somebody whose first wait of `timeout` seconds is in vain and who then comes back."""
    tally = Tally(path)
    if lock.acquire(timeout=timeout):
        raise AssertionError("the first wait was to be in vain")
    Path(path + ".left").touch()
    until(Path(path + ".back").exists, "the word to come back")
    if not lock.acquire(timeout=last):
        raise AssertionError("the second wait was in vain, too")
    try:
        return tally.add(None), lock.ticket
    finally:
        lock.release()


def hold_until(lock: TicketLock, path: str) -> None:
    """Hold the lock until the file exists."""
    with lock:
        until(Path(path).exists, f"the word to release: {path}")


def release_when_queued(lock: TicketLock, waiters: int) -> None:
    """Release as soon as so many wait."""
    until(lambda: lock.waiters >= waiters, f"{waiters} waiters")
    lock.release()


def release_when_written(lock: TicketLock, path: str, text: str, times: int) -> None:
    """Release as soon as the file has the text so many times, and somebody waits."""
    until(lambda: Path(path).read_text().count(text) >= times, f"{text!r} in {path}")
    release_when_queued(lock, 1)


def release_when_ended(lock: TicketLock, pids: list[int]) -> None:
    """Release as soon as the processes have ended, whether their parent knows or not, and somebody waits."""
    until(lambda: lock.waiters >= 1, "a waiter")
    until(lambda: not any(alive(pid) for pid in pids), "the ends of processes")
    lock.release()


def signal_when_queued(lock: TicketLock, waiters: int, pid: int, number: int) -> None:
    """Send the signal as soon as so many wait."""
    until(lambda: lock.waiters >= waiters, f"{waiters} waiters")
    os.kill(pid, number)


def signal_after(lock: TicketLock, path: str, delay: float, pid: int, number: int) -> None:
    """Send the signal `delay` seconds after the file has come to be."""
    until(Path(path).exists, f"the word to send a signal: {path}")
    time.sleep(delay)
    os.kill(pid, number)


def succeed(lock: TicketLock, timeout: float | None) -> tuple[bool, int]:
    """(whether a holder had died, ticket) of one acquisition, which puts things in order."""
    with lock.repair(timeout):
        return lock.owner_died, lock.ticket


def acquire_silently(lock: TicketLock) -> bool:
    """acquire(), whoever has died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return lock.acquire()


def acquire_silently_at(locks: LockArray, index: int) -> bool:
    """acquire(index), whoever has died."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return locks.acquire(index)


def mark_consistent(lock: TicketLock) -> None:
    """mark_consistent()."""
    lock.mark_consistent()


def warned_visit(lock: TicketLock) -> list[str]:
    """The warnings that came with one acquisition."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with lock:
            pass
    return [warning.category.__name__ for warning in told]


ENDS = ("_exit", "exit", "exec", "abort", "fault")


def end_holding(lock: TicketLock, how: str, path: str) -> None:
    """Take the lock, and end as a process, or as this program, once the file exists."""
    lock.acquire()
    until(Path(path).exists, f"the word to end: {path}")
    faulthandler.disable()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    match how:
        case "_exit":
            os._exit(3)
        case "exit":
            sys.exit(0)
        case "exec":
            os.execl(sys.executable, sys.executable, "-S", "-c", "import time; time.sleep(1000)")
        case "abort":
            os.abort()
        case "fault":
            os.kill(os.getpid(), signal.SIGSEGV)


def end_thread_holding(lock: TicketLock, path: str) -> None:
    """Let another thread take the lock and end, once the file exists, without releasing it."""

    def work() -> None:
        lock.acquire()
        until(Path(path).exists, f"the word to end: {path}")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


def fork_holding(lock: TicketLock) -> int:
    """Take the lock and fork; the child's pid, which sleeps until it is killed."""
    lock.acquire()
    pid = os.fork()
    if pid == 0:
        time.sleep(1000)
        os._exit(1)
    return pid


def wait_in_a_wait(lock: TicketLock, other: TicketLock) -> None:
    """Wait for the lock with a handler of SIGUSR1 that waits for the other."""
    signal.signal(signal.SIGUSR1, lambda *_: other.acquire() and None)
    lock.acquire()


def acquire_at(locks: LockArray, index: int, timeout: float | None = None) -> bool:
    """acquire(index)"""
    return locks.acquire(index, timeout=timeout)


def leave_all(locks: LockArray) -> int:
    """Try each with next to no patience; how many were entered."""
    return sum(locks.acquire(i, timeout=1e-6) for i in range(len(locks)))


def release_at(locks: LockArray, index: int) -> None:
    """release(index)"""
    locks.release(index)


def release_when_queued_at(locks: LockArray, index: int) -> None:
    """Release as soon as somebody waits."""
    release_when_queued(locks[index], 1)


def laps_under_all(locks: LockArray, path: str, times: int, seed: int) -> None:
    """Add to the tally under all locks of the array, taken in order, now by index, now by handle."""
    tally, chance = Tally(path), random.Random(seed)
    for _ in range(times):
        for i in range(len(locks)):
            if chance.random() < 0.5:
                locks.acquire(i)
            else:
                locks[i].acquire()
        tally.add(chance.choice((None, 1e-6)))
        for i in range(len(locks)):
            locks.release(i)


def make_locks(lock: TicketLock, names: list[str]) -> list[int]:
    """Indices of the named locks, made as soon as the puppet's lock is free."""
    with lock:
        pass
    return [lock.domain.lock(name).index for name in names]


def open_and_close(lock: TicketLock, name: str, times: int) -> int:
    """Use a lock of the named domain, opened anew each time; how often that went well."""
    for done in range(times):
        try:
            domain = Domain(name, vcpus=16, locks=16)
            orders = domain.lock("orders")
            with orders:
                owner = orders.owner
                if owner is None or owner.tid != threading.get_native_id():
                    return done
            domain.close()
        except (DomainBusyError, ClosedError):
            pass  # another thread of this process is at it
    return times


def pickled(lock: TicketLock) -> bytes:
    """A pickle of the puppet's lock, made in the puppet."""
    return pickle.dumps(lock)


def acquire_pickled(lock: TicketLock, data: bytes) -> tuple[int, int]:
    """(index, ticket) of the lock of a pickle, now held."""
    other: TicketLock = pickle.loads(data)
    other.acquire()
    return other.index, other.ticket


_kept: list[Any] = []


def keep(lock: Any) -> None:
    """An initializer of pools."""
    _kept.append(lock)


def with_kept(task: Any, *arguments: Any) -> Any:
    """A task with the lock that the initializer was given."""
    return task(_kept[0], *arguments)


def uid_of(lock: TicketLock, name: str) -> bytes:
    """Which domain the name means, asked for as soon as the puppet's lock is free."""
    with lock:
        pass
    with Domain(name).lock("orders"):
        return Domain(name).uid


def try_other(lock: TicketLock, other: TicketLock, timeout: float) -> bool:
    """A timed acquire of another lock than the puppet's."""
    return other.acquire(timeout=timeout)


def release_other(lock: TicketLock, other: TicketLock) -> None:
    """release() of another lock than the puppet's."""
    other.release()


def send_signals(lock: TicketLock, pid: int, number: int, end: str) -> None:
    """One signal after the other, until the file exists."""
    chance = random.Random(number)
    while not Path(end).exists():
        os.kill(pid, number)
        time.sleep(chance.choice((0, 2e-5, 2e-4, 1e-3)))
