"""Who holds and who waits, arranged for those who look at it."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from pylocks import TicketLock
from pylocks.observe import Lock, snapshot
from support import run
from support.wait import until

SCRIPT = """
import os, sys, pylocks
name, *locks = sys.argv[1:]
domain = pylocks.Domain(name)
print("here", flush=True)
for line in sys.stdin:
    word, which = line.split()
    getattr(domain.lock(which), word)()
    print("done", flush=True)
"""


def seen(lock: TicketLock) -> Lock:
    """The lock as an observer sees it."""
    found = snapshot(lock.domain).lock(str(lock.index) if lock.name is None else lock.name)
    assert found is not None
    return found


@contextmanager
def queue(lock: TicketLock, waiters: int) -> Iterator[list[int]]:
    """So many threads wait for the lock, one behind the other; their ids.  Whoever comes in leaves at once.

    The caller holds the lock and releases it before the end.
    """
    tids: list[int] = []

    def wait() -> None:
        tids.append(threading.get_native_id())
        with lock:
            pass

    threads = [threading.Thread(target=wait) for _ in range(waiters)]
    for number, thread in enumerate(threads, 1):
        thread.start()
        until(lambda n=number: len(seen(lock).waiters) == n, f"waiter {number} in the queue")  # type: ignore[misc]
    yield tids
    for thread in threads:
        thread.join()


class Tenant(run.Interactive):
    """A process that has a domain open."""

    def __init__(self, name: str) -> None:
        super().__init__("-c", SCRIPT, name)
        assert self.line() == "here"

    def do(self, word: str, lock: str) -> None:
        """acquire or release; until it is done."""
        self.say(f"{word} {lock}")
        assert self.line() == "done"


def descriptors() -> int:
    """How many this process has open."""
    return len(os.listdir("/proc/self/fd"))
