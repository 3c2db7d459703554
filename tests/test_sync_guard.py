"""A thread is stopped with the guard of an object: deadlines and signals count for the others all the same.

The one that keeps it is another process, which has the guard's cell locked as any lock.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support import header
from support.syncs import forked, thread, waiting
from support.wait import until

import pylocks
from pylocks import callables
from pylocks.mutex import Mutex

STRIDE, NODE = 64, 64
QUEUED, CALLED = 1, 2
LONG_S = 3600.0


class Handle(ctypes.Structure):
    """struct plk_lock"""

    _fields_ = (
        ("cell", ctypes.c_void_p), ("domain", ctypes.c_void_p),
        ("id", ctypes.c_uint64), ("policy", ctypes.c_uint32),
    )  # fmt: skip


class Keeper:
    """Another process, which takes the guard and gives it back when it is told to."""

    def __init__(self, sync: Any) -> None:
        self.orders, self.replies = os.pipe(), os.pipe()
        self.lock = pylocks.TicketLock(domain=sync.domain)
        self.guard = Handle.from_buffer_copy(ctypes.string_at(self.lock.address, ctypes.sizeof(Handle)))
        self.guard.cell += (sync.index + 1 - self.guard.id) * STRIDE
        self.guard.id = sync.index + 1
        self.guard.policy = 0

    def serve(self) -> None:
        """In the other process."""
        os.close(self.orders[1])
        while order := os.read(self.orders[0], 1):
            (callables.acquire if order == b"t" else callables.release)(ctypes.addressof(self.guard))
            os.write(self.replies[1], b".")

    def tell(self, order: bytes) -> None:
        os.write(self.orders[1], order)
        assert os.read(self.replies[0], 1) == b"."

    def take(self) -> None:
        self.tell(b"t")

    def give(self) -> None:
        self.tell(b"r")

    def close(self) -> None:
        for end in (*self.orders, *self.replies):
            os.close(end)


def once(side: Any) -> None:
    """In and out: who is inside at its end would be missed by the next."""
    with side:
        pass


@contextmanager
def keeper_of(sync: Any) -> Iterator[Keeper]:
    """Its guard is kept by nobody yet."""
    keeper = Keeper(sync)
    try:
        with forked(keeper.serve):
            yield keeper
    finally:
        keeper.close()


@pytest.fixture
def domain(name: str) -> Iterator[pylocks.Domain]:
    with pylocks.Domain(name) as made:
        yield made


def taken_mutex(domain: pylocks.Domain) -> Mutex:
    made = Mutex(domain=domain)
    assert made.acquire()
    return made


def timed(condition: pylocks.Condition) -> bool:
    with condition:
        return condition.wait(0.1)


def refused(barrier: pylocks.Barrier) -> bool:
    with suppress(threading.BrokenBarrierError):
        barrier.wait(0.1)
        return True
    return False


WAITS: dict[str, tuple[Callable[[pylocks.Domain], Any], Callable[[Any], bool]]] = {
    "semaphore": (lambda d: pylocks.Semaphore(0, domain=d), lambda s: s.acquire(timeout=0.1)),
    "at once": (lambda d: pylocks.Semaphore(0, domain=d), lambda s: s.acquire(blocking=False)),
    "owned": (lambda d: pylocks.Semaphore(1, domain=d, owned=True), lambda s: s.acquire(timeout=0.1)),
    "mutex": (taken_mutex, lambda m: m.acquire(timeout=0.1)),
    "event": (lambda d: pylocks.Event(domain=d), lambda e: e.wait(0.1)),
    "condition": (lambda d: pylocks.Condition(domain=d), timed),
    "barrier": (lambda d: pylocks.Barrier(2, domain=d), refused),
    "rwlock": (lambda d: pylocks.RWLock(domain=d), lambda r: r.write.acquire(timeout=0.1)),
}


@pytest.mark.parametrize("kind", WAITS)
def test_who_comes_gives_up_in_time(domain: pylocks.Domain, kind: str) -> None:
    make, wait = WAITS[kind]
    sync = make(domain)
    with keeper_of(sync) as keeper:
        keeper.take()
        assert wait(sync) is False
        keeper.give()
        if kind == "mutex":
            sync.release()


def test_who_is_queued_gives_up_in_time(domain: pylocks.Domain) -> None:
    s, results = pylocks.Semaphore(0, domain=domain), []
    with keeper_of(s) as keeper:
        with thread(lambda: results.append(s.acquire(timeout=2))):
            waiting(s, 1)
            keeper.take()
        assert results == [False]
        assert s.waiters == 1  # it has left its place behind
        keeper.give()
        s.release()
        assert s.acquire(timeout=LONG_S)
        until(lambda: s.waiters == 0, "the place to be taken away")
        assert s.value == 0


def test_a_place_that_was_left_takes_no_turn(domain: pylocks.Domain) -> None:
    """Not that of a writer who gave up, for whom readers would wait."""
    rw, results = pylocks.RWLock(domain=domain), []
    with keeper_of(rw) as keeper:
        assert rw.read.acquire()
        with thread(lambda: results.append(rw.write.acquire(timeout=2))):
            waiting(rw, 1)
            keeper.take()
        assert results == [False]
        keeper.give()
        rw.read.release()
        with forked(lambda: once(rw.read), lambda: once(rw.write)) as children:
            assert [child.wait() for child in children] == [0, 0]


def test_who_has_taken_has_it(domain: pylocks.Domain, name: str) -> None:
    """Called, it takes what is there, and does not wait for the guard to say so."""
    s, results = pylocks.Semaphore(0, domain=domain), []
    path = Path(f"/dev/shm/pylocks.{name}")
    with keeper_of(s) as keeper:
        with thread(lambda: results.append(s.acquire(timeout=LONG_S))):
            waiting(s, 1)
            keeper.take()
            s.release()  # does not wait for the guard either; nobody is called yet
            nodes = range(header.read(path).geometry.off_nodes, header.read(path).geometry.off_tallies, NODE)
            with open(path, "rb") as file:
                (at,) = (
                    at for at in nodes[:256] if os.pread(file.fileno(), 4, at) == QUEUED.to_bytes(4, "little")
                )
            header.poke(path, at, CALLED.to_bytes(4, "little"))
        assert results == [True] and s.value == 0
        keeper.give()
        s.release()
        assert s.acquire(timeout=LONG_S)
        until(lambda: s.waiters == 0, "the place to be taken away")


def test_what_was_released_meanwhile_is_found(domain: pylocks.Domain) -> None:
    s, results = pylocks.Semaphore(0, domain=domain), []
    with keeper_of(s) as keeper:
        with thread(lambda: results.append(s.acquire(timeout=LONG_S))):
            waiting(s, 1)
            keeper.take()
            s.release()
            keeper.give()
        assert results == [True]
        assert (s.value, s.waiters) == (0, 0)


class Interrupted(Exception):
    pass


@pytest.fixture
def handler() -> Iterator[None]:
    def handle(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, handle)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("handler")
@pytest.mark.parametrize("queued", [False, True])
def test_signals_end_a_wait(domain: pylocks.Domain, queued: bool) -> None:
    s = pylocks.Semaphore(0, domain=domain)
    with keeper_of(s) as keeper:

        def interrupt() -> None:
            if queued:
                waiting(s, 1)
                keeper.take()
            os.kill(os.getpid(), signal.SIGUSR1)

        if not queued:
            keeper.take()
        with pytest.raises(Interrupted), thread(interrupt):
            s.acquire()
        keeper.give()
        s.release()
        assert s.acquire(timeout=LONG_S)
        until(lambda: s.waiters == 0, "the place to be taken away")
