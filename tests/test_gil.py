"""The GIL and what runs beside a wait: computing threads, the collector, faulthandler, asyncio."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest
from support import run, tasks
from support.puppet import KINDS, troupe
from support.stage import busy_thread
from support.wait import until

import pylocks


@pytest.fixture
def lock() -> pylocks.TicketLock:
    return pylocks.TicketLock(domain=pylocks.Domain())


# ------------------------------------------------------------------ threads that have the GIL


@pytest.mark.parametrize("kind", KINDS)
def test_a_waiter_enters_in_spite_of_threads_that_compute(kind: str, lock: pylocks.TicketLock) -> None:
    """Each turn it must take the GIL from them, with which they would rather not part."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.02)
    try:
        with troupe(kind, lock) as made, busy_thread() as one, busy_thread() as two:
            (puppet,) = made.puppets(1)
            for turn in range(10):
                puppet.call(tasks.acquire)
                puppet.start(tasks.release_when_queued, 1)
                assert lock.acquire(timeout=(None, 60)[turn % 2])
                lock.release()
                puppet.finish()
            assert one[0] and two[0]
    finally:
        sys.setswitchinterval(interval)
    assert not lock.locked()


def test_a_thread_that_does_not_let_go_of_the_gil_delays_only_its_own_process(
    lock: pylocks.TicketLock,
) -> None:
    """Long calls into C: a waiter of this process is served when they end, those of others at once."""
    end = threading.Event()

    def hog() -> None:
        while not end.is_set():
            sum(range(300_000))  # in C, without a look whether others want the GIL

    thread = threading.Thread(target=hog)
    with troupe("fork", lock) as made:
        puppets = made.puppets(2)
        thread.start()
        try:
            for puppet in puppets:
                puppet.start(_laps, 200)
            for _ in range(10):
                with lock:
                    pass
            assert [puppet.finish() for puppet in puppets] == [200, 200]
        finally:
            end.set()
            thread.join()
    assert lock.ticket == 410


def _laps(lock: pylocks.TicketLock, times: int) -> int:
    for _ in range(times):
        with lock:
            pass
    return times


def test_many_waiters_of_one_process_do_not_hold_the_gil(lock: pylocks.TicketLock) -> None:
    """All wait, in every way there is, while the main thread computes."""
    waits = [
        lambda: lock.acquire(),
        lambda: lock.acquire(timeout=300),
        lambda: lock.__enter__(),
        lambda: lock.within(300).__enter__(),
        lambda: lock.repair(300).__enter__(),
    ]
    entered: list[int] = []

    def work(number: int) -> None:
        assert waits[number]()
        entered.append(number)
        lock.release()

    with lock:
        threads = []
        for number in range(len(waits)):
            threads.append(threading.Thread(target=work, args=(number,)))
            threads[-1].start()
            until(lambda want=number + 1: lock.waiters == want, "it queues")  # type: ignore[misc]
        assert sum(1 for _ in range(300_000)) == 300_000
        assert entered == []
    for thread in threads:
        thread.join()
    assert entered == list(range(len(waits)))


# ------------------------------------------------------------------ finalizers


class Cycle:
    """Ended by the collector alone."""

    def __init__(self, action: object) -> None:
        self.me, self.action = self, action

    def __del__(self) -> None:
        self.action()  # type: ignore[operator]


COLLECTED = """
import gc, os, signal, sys, threading, pylocks
from support import tasks
from support.puppet import troupe
from support.wait import until
first, second = pylocks.TicketLock(), pylocks.TicketLock()
taken, refused = [], []
class Cycle:
    def __init__(self): self.me = self
    def __del__(self):
        with second:
            taken.append(threading.get_native_id())
        try:
            first.acquire()
        except pylocks.AlreadyOwnerError:
            refused.append(threading.get_native_id())
            return
        first.release()
def rubbish():
    for _ in range(50): Cycle()
gc.set_threshold(10)
signal.signal(signal.SIGUSR1, lambda *_: rubbish())
me = threading.get_native_id()
with troupe("fork", first) as made:
    holder, sender = made.puppets(2)
    for turn in range(10):
        holder.call(tasks.acquire)
        before = len(taken)
        sender.start(tasks.signal_when_queued, 1, os.getpid(), signal.SIGUSR1)
        holder.start(tasks.release_when_queued, 2)  # a finalizer's ticket, abandoned, is the second
        with first:
            pass
        holder.finish()
        sender.finish()
assert taken and me in taken and set(taken) == {me}
assert refused and set(refused) == {me}
assert not first.locked() and not second.locked()
print("fine")
"""


def test_the_collector_runs_finalizers_that_take_locks_during_a_wait() -> None:
    """By itself, in the waiting thread: another lock is taken, the one that is waited for refused."""
    assert run.python("-c", COLLECTED).check() == "fine\n"


def test_a_finalizer_takes_a_lock_while_its_thread_holds_another(lock: pylocks.TicketLock) -> None:
    import gc

    other = pylocks.TicketLock(domain=lock.domain)
    order: list[str] = []

    def finalize() -> None:
        with other:
            order.append("other")
        with pytest.raises(pylocks.AlreadyOwnerError):
            lock.acquire()
        order.append("refused")

    with lock:
        Cycle(finalize)
        gc.collect()
        assert order == ["other", "refused"]
        assert lock.owner is not None
    assert not lock.locked() and not other.locked()


# ------------------------------------------------------------------ faulthandler

FAULTHANDLER = """
import faulthandler, os, signal, sys, pylocks
from support import tasks
from support.puppet import troupe
from support.wait import until
lock = pylocks.TicketLock()
out = open(sys.argv[1], "w+")
def dumps():
    out.seek(0)
    return out.read().count("most recent call first")
with troupe("fork", lock) as made:
    holder, sender = made.puppets(2)
    faulthandler.enable(out)
    faulthandler.register(signal.SIGUSR1, out, all_threads=True)
    faulthandler.dump_traceback_later(0.01, repeat=True, file=out)
    for timeout in (None, 300):
        holder.call(tasks.acquire)
        mine = lock.ticket + 1
        seen = dumps()
        sender.start(tasks.signal_when_queued, 1, os.getpid(), signal.SIGUSR1)
        holder.start(tasks.release_when_written, sys.argv[1], "most recent call first", seen + 5)
        assert lock.acquire(timeout=timeout)
        assert lock.ticket == mine
        holder.finish()
        sender.finish()
        lock.release()
    faulthandler.cancel_dump_traceback_later()
    faulthandler.unregister(signal.SIGUSR1)
out.seek(0)
text = out.read()
assert "Timeout (0:00:00.010000)!" in text
assert text.count("most recent call first") >= 10
assert not lock.locked()
print("fine")
"""


def test_faulthandler_dumps_tracebacks_during_waits(tmp_path: Path) -> None:
    """By a timer and by a signal, whose handler is C and interrupts the wait's system call."""
    done = run.python("-c", FAULTHANDLER, tmp_path / "dumps")
    assert done.check() == "fine\n"


# ------------------------------------------------------------------ asyncio

ASYNCIO = """
import asyncio, logging, os, signal, sys, warnings, psutil, pylocks
from support import tasks
from support.puppet import troupe
warnings.simplefilter("ignore", DeprecationWarning)
lock, other = pylocks.TicketLock(), pylocks.TicketLock()

async def child(seconds):
    return await asyncio.create_subprocess_exec(
        sys.executable, "-S", "-c", f"import time; time.sleep({seconds})")

def mine():
    return lock.owner is not None and lock.owner.pid == os.getpid()

def critical(number):
    with lock:
        return number

async def main(made):
    holder, = made.puppets(1)
    # Children come and go while the lock is held here.
    with lock:
        processes = await asyncio.gather(*(child(0) for _ in range(5)))
        assert [await p.wait() for p in processes] == [0] * 5
        assert mine()
        doomed = await child(1000)
        doomed.kill()
        assert await doomed.wait() == -signal.SIGKILL
        assert mine()
    # They end, with a SIGCHLD each, while this thread waits and the loop stands still.
    for timeout in (None, 300):
        holder.call(tasks.acquire)
        ticket = lock.ticket + 1
        processes = await asyncio.gather(*(child(0.01 * n) for n in range(3)))
        holder.start(tasks.release_when_ended, [p.pid for p in processes])
        assert lock.acquire(timeout=timeout)
        assert (lock.ticket, mine()) == (ticket, True)
        holder.finish()
        lock.release()
        assert [await p.wait() for p in processes] == [0] * 3
    # Threads of the loop wait while children come and go.
    holder.call(tasks.acquire)
    waiting = [asyncio.create_task(asyncio.to_thread(critical, n)) for n in range(3)]
    while lock.waiters < 3:
        await asyncio.sleep(0.001)
    assert [await (await child(0)).wait() for _ in range(3)] == [0] * 3
    assert lock.waiters == 3
    holder.call(tasks.release)
    assert sorted(await asyncio.gather(*waiting)) == [0, 1, 2]

async def watched(made):
    if sys.argv[1] != "default":
        watcher = getattr(asyncio, sys.argv[1])()
        if not isinstance(watcher, getattr(asyncio, "ThreadedChildWatcher")):
            watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)
    # MultiLoopChildWatcher grumbles at a child that a SIGCHLD amid its own handler has dealt with.  The
    # exit statuses are right all the same, and those are looked at.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    await main(made)

with troupe("fork", lock) as made:
    asyncio.run(watched(made))
assert not lock.locked()
print("fine")
"""

WATCHERS = (
    "default",
    "PidfdChildWatcher",
    "ThreadedChildWatcher",
    "SafeChildWatcher",
    "FastChildWatcher",
    "MultiLoopChildWatcher",
)
"""Those that Python has: only the first is left in 3.14."""


@pytest.mark.parametrize("watcher", WATCHERS)
def test_asyncio_watches_children_while_locks_are_held_and_waited_for(watcher: str) -> None:
    import asyncio
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        if watcher != "default" and not hasattr(asyncio, watcher):
            pytest.skip(f"this Python has no asyncio.{watcher}")
    assert run.python("-c", ASYNCIO, watcher).check() == "fine\n"
