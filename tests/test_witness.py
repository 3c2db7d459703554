"""Deaths of which the kernel does not tell in the usual way, and who hears of those of which it does."""

from __future__ import annotations

import pytest
from support import run
from support.wait import until

import pylocks

EXEC = """
import os, sys, threading, pylocks
lock = pylocks.Domain(sys.argv[1]).lock("x")
def replace():
    lock.acquire()
    os.execv(sys.executable, [sys.executable, "-c", "print('held', flush=True); input()"])
thread = threading.Thread(target=replace)
(thread.start() if sys.argv[2] == "thread" else replace())
thread.join()
"""


def replaced(domain: str, by: str) -> run.Interactive:
    """A process whose main thread, or another, is to acquire lock "x" and call exec."""
    return run.Interactive("-c", EXEC, domain, by)


@pytest.mark.parametrize("by", ["main", "thread"])
@pytest.mark.parametrize("lives_on", [True, False], ids=["goes on", "was killed"])
def test_a_program_that_exec_replaced_holds_nothing(name: str, by: str, lives_on: bool) -> None:
    """A thread other than the main one takes over its id, and the kernel does not know its words again."""
    with pylocks.Domain(name) as domain, replaced(name, by) as process:
        assert process.line() == "held"
        lock = domain.lock("x")
        if not lives_on:
            process.kill()
        with pytest.warns(pylocks.OwnerDiedWarning):
            assert lock.acquire(timeout=60)
        lock.mark_consistent()
        lock.release()
        until(lambda: domain.recover() >= 0 and len(domain.vcpus()) == 1, "the slot comes back")


def test_slots_of_replaced_threads_are_given_to_others(name: str) -> None:
    """Nobody waits: who finds the table full asks the kernel."""
    script = "import sys, pylocks\nwith pylocks.Domain(sys.argv[1]).lock('y'): print('in')"
    with pylocks.Domain(name, vcpus=1), replaced(name, "thread") as process:
        assert process.line() == "held"
        assert run.python("-c", script, name).check() == "in\n"


DEATHS = """
import os, pylocks
lock = pylocks.TicketLock()
for _ in range(3):
    if os.fork() == 0:
        lock.acquire()
        os._exit(0)
    os.wait()
    with lock:
        assert lock.owner_died
        lock.mark_consistent()
"""


def test_every_death_is_told_of() -> None:
    """Not the first alone, though the same line of code acquires: with Python's own filters."""
    done = run.python("-c", DEATHS)
    assert done.status == 0, done.err
    assert done.err.count("OwnerDiedWarning") == 3, done.err


CROWD = """
import os, signal, time, pylocks
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
lock = pylocks.TicketLock()
ready, go = os.pipe()
holder = os.fork()
if holder == 0:
    lock.acquire()
    os.write(go, b"x")
    time.sleep(0.3)
    os._exit(0)
os.read(ready, 1)
busy = []
for _ in range(3):
    busy.append(os.fork())
    while busy[-1] == 0:
        pass
lock.acquire()
for pid in busy:
    os.kill(pid, signal.SIGKILL)
print(lock.domain.stats().yields)
"""


def test_a_crowd_that_yields_finds_the_dead_by_the_clock() -> None:
    """A turn of sched_yield may last as long as the time slices of all others."""
    settings = run.settings(PYLOCKS_OPS="lock_spinning=yield,lock_event=counters", PYTHONWARNINGS="ignore")
    turns = int(run.python("-c", CROWD, environment=settings).check())
    assert 1 <= turns < 1024, "turns were counted, not time"
