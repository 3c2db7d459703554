"""Signals during every kind of wait, with handlers that do all that handlers may do.

Each test has the main thread wait in one way; while it does, a handler runs and others queue behind;
then the holder lets go.  Whatever the handler did, the wait goes on at its place, or ends with the
handler's exception and leaves a queue that moves.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import os
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import segment_path
from support import header, tasks
from support.child import in_child
from support.puppet import Puppet, troupe
from support.stage import handler
from support.wait import until

import pylocks

LOCK, OTHER, SPARE = 3, 5, 6
"""Elements of the array: the one waited for, one that somebody else holds, and a free one."""


class Ring(Exception):
    """What a handler raises."""


@pytest.fixture
def array() -> Iterator[pylocks.LockArray]:
    made = pylocks.LockArray(8)
    yield made
    made.close()


WAITS: dict[str, Callable[[pylocks.LockArray], object]] = {
    "acquire": lambda array: array[LOCK].acquire(),
    "timed": lambda array: array[LOCK].acquire(timeout=300),
    "with": lambda array: array[LOCK].__enter__(),
    "within": lambda array: array[LOCK].within(300).__enter__(),
    "array": lambda array: array.acquire(LOCK),
    "array timed": lambda array: array.acquire(LOCK, timeout=300),
    "repair": lambda array: array[LOCK].repair(300).__enter__(),
}


# ------------------------------------------------------------------ what a handler does


def _returns(array: pylocks.LockArray) -> None:
    pass


def _raises(array: pylocks.LockArray) -> None:
    raise Ring


def _takes_a_free_lock(array: pylocks.LockArray) -> None:
    for take in (lambda: array.acquire(SPARE), lambda: array.acquire(SPARE, False), array[SPARE].acquire):
        assert take() is True
        array.release(SPARE)


def _waits_for_a_lock(array: pylocks.LockArray) -> None:
    array.acquire(OTHER)
    array.release(OTHER)


def _takes_and_raises(array: pylocks.LockArray) -> None:
    with array[OTHER]:
        raise Ring


def _is_told_not_to(array: pylocks.LockArray) -> None:
    """Neither to wait for the lock of its own frame nor to release it."""
    with pytest.raises(pylocks.AlreadyOwnerError):
        array.acquire(LOCK)
    with pytest.raises(pylocks.NotOwnerError):
        array.release(LOCK)
    assert array.acquire(LOCK, False) is False


def _forks(array: pylocks.LockArray) -> None:
    """A child that ends in the handler."""
    assert in_child(lambda: (array.acquire(LOCK, timeout=0.001), array.acquire(SPARE))) == (False, True)
    assert in_child(lambda: array.acquire(LOCK, False), killed=True) is False


def _starts_a_process(array: pylocks.LockArray) -> None:
    """Which sends SIGCHLD when it ends, and has nothing of this one's."""
    assert subprocess.run([sys.executable, "-S", "-c", ""]).returncode == 0


class Finalized:
    """In a cycle, so that only the collector ends it."""

    def __init__(self, action: Callable[[], object]) -> None:
        self.me, self.action = self, action

    def __del__(self) -> None:
        self.action()


def _is_collected(array: pylocks.LockArray) -> None:
    """A finalizer takes a lock, and so does the callback of a weak reference."""
    ended: list[str] = []

    def finalize(what: str) -> None:
        with array[OTHER], array[SPARE]:
            ended.append(what)

    victim = Finalized(lambda: finalize("finalizer"))
    weakref.finalize(victim, finalize, "callback")
    del victim
    gc.collect()
    assert sorted(ended) == ["callback", "finalizer"]


def _closes_another_domain(array: pylocks.LockArray) -> None:
    with pylocks.Domain() as domain, pylocks.TicketLock(domain=domain):
        pass
    with pytest.raises(pylocks.DomainBusyError):
        array.close()


ACTIONS = (
    _returns,
    _raises,
    _takes_a_free_lock,
    _waits_for_a_lock,
    _takes_and_raises,
    _is_told_not_to,
    _forks,
    _starts_a_process,
    _is_collected,
    _closes_another_domain,
)


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.__name__.strip("_"))
@pytest.mark.parametrize("wait", WAITS)
def test_a_handler_during_a_wait(
    wait: str, action: Callable[[pylocks.LockArray], None], array: pylocks.LockArray
) -> None:
    lock = array[LOCK]
    wrong: list[BaseException] = []
    begun, ended = threading.Event(), threading.Event()

    def act() -> None:
        if begun.is_set():
            return
        begun.set()
        try:
            action(array)
        except Ring:
            raise
        except BaseException as error:
            wrong.append(error)
        finally:
            ended.set()

    with troupe("threads", array) as made, handler(signal.SIGUSR1, act):
        holder, other, behind = made.puppets(3)
        other.call(tasks.acquire_at, OTHER)
        holder.call(tasks.acquire_at, LOCK)
        mine = lock.ticket + 1
        conductor = _conduct(array, [holder, other, behind], begun, ended)
        if action in (_raises, _takes_and_raises):
            with pytest.raises(Ring):
                WAITS[wait](array)
            with pytest.raises(pylocks.NotOwnerError):
                lock.release()
        else:
            assert WAITS[wait](array)
            assert (lock.ticket, lock.owner_died) == (mine, False)
            lock.release()
        conductor.join()
        assert behind.finish() is True
        behind.call(tasks.release_at, LOCK)
    assert not wrong, wrong
    assert not any(each.locked() for each in array)
    assert [(v.held, v.waiting_for) for v in array.domain.vcpus() if v.tid == threading.get_native_id()] == [
        (0, None)
    ]


def _conduct(
    array: pylocks.LockArray, cast: list[Puppet], begun: threading.Event, ended: threading.Event
) -> threading.Thread:
    """Send the signal, let another queue behind, let the handler have its lock, then release."""
    holder, other, behind = cast
    me = threading.get_native_id()

    def waits_for(index: int) -> bool:
        return any(v.tid == me and v.waiting_for == index for v in array.domain.vcpus())

    def conduct() -> None:
        until(lambda: waits_for(LOCK), "the main thread waits")
        os.kill(os.getpid(), signal.SIGUSR1)
        until(begun.is_set, "the handler runs")
        before = array[LOCK].waiters
        behind.start(tasks.acquire_at, LOCK)
        until(lambda: array[LOCK].waiters > before, "somebody queues behind")
        until(lambda: waits_for(OTHER) or ended.is_set(), "the handler waits, if it does")
        other.call(tasks.release_at, OTHER)
        until(ended.is_set, "the handler has ended")
        holder.call(tasks.release_at, LOCK)

    conductor = threading.Thread(target=conduct)
    conductor.start()
    return conductor


# ------------------------------------------------------------------ the first wait of all


libc = ctypes.CDLL(None, use_errno=True)


def keep_guard(lock: pylocks.TicketLock, path: str, at: int, flag: str) -> None:
    """Hold the domain's mutex, which registration needs, while the file exists."""
    with open(path, "r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    word = (ctypes.c_char * 64).from_buffer(memory, at)
    assert libc.pthread_mutex_lock(ctypes.byref(word)) == 0
    Path(flag).touch()
    until(lambda: not Path(flag).exists(), "the word to let go of the guard")
    assert libc.pthread_mutex_unlock(ctypes.byref(word)) == 0
    del word
    memory.close()


@pytest.mark.parametrize("wait", WAITS)
@pytest.mark.parametrize("raises", (False, True), ids=("returns", "raises"))
def test_a_signal_while_the_thread_is_registered(raises: bool, wait: str, name: str, tmp_path: Path) -> None:
    """Registration waits for the domain's mutex; the handler runs when that is over, before any ticket."""
    array = pylocks.LockArray(8, name)
    flag = tmp_path / "flag"
    rung: list[int] = []

    def ring() -> None:
        rung.append(1)
        if raises:
            raise Ring

    with troupe("fork", array) as made, handler(signal.SIGUSR1, ring):
        keeper, sender = made.puppets(2)
        path = str(segment_path(name))
        keeper.start(keep_guard, path, header.place("guard")[0], str(flag))
        until(flag.exists, "the guard is held")
        sender.start(_signal_when_blocked, os.getpid(), threading.get_native_id(), str(flag))
        if raises:
            with pytest.raises(Ring):
                WAITS[wait](array)
        else:
            assert WAITS[wait](array)
            array.release(LOCK)
        keeper.finish()
        sender.finish()
    assert rung == [1]
    assert array[LOCK].ticket == (0 if raises else 1)
    array.close()


def _signal_when_blocked(array: pylocks.LockArray, pid: int, tid: int, flag: str) -> None:
    """Signal the thread once it sleeps in the kernel, and only then let the guard go."""

    def sleeps() -> bool:
        text = Path(f"/proc/{pid}/task/{tid}/syscall").read_text().split()
        return text[0] == "202"

    until(sleeps, "the thread waits for the guard")
    os.kill(pid, signal.SIGUSR1)
    Path(flag).unlink()
