"""Waits for permits, and holding them, that end otherwise: by signals, forks, deaths and owners."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.syncs import KINDS, forked, thread, waiting
from support.wait import until

import pylocks


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Callable[..., pylocks.Semaphore]:
    return KINDS[request.param]


class Stop(Exception):
    pass


def test_a_signal_handler_that_raises_ends_the_wait(make: Any) -> None:
    s = make(1)
    s.acquire()

    def stop(*_: object) -> None:
        raise Stop

    def interrupt() -> None:
        waiting(s, 1)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, stop)
    try:
        with thread(interrupt), pytest.raises(Stop):
            s.acquire()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert s.waiters == 0
    s.release()
    assert s.value == 1


def test_a_signal_handler_may_use_the_same_semaphore() -> None:
    """The place of the wait that it interrupts is kept, and does not keep others from theirs."""
    s, ran = pylocks.Semaphore(0), []

    def handle(*_: object) -> None:
        s.release()
        ran.append(s.acquire(timeout=60))
        s.release()

    def interrupt() -> None:
        waiting(s, 1)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with thread(interrupt):
            assert s.acquire(timeout=60)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert ran == [True] and s.value == 0 and s.waiters == 0


def test_a_signal_handler_may_fork() -> None:
    """The child waits as a process of its own."""
    s, pids = pylocks.Semaphore(0), []

    def handle(*_: object) -> None:
        pids.append(os.fork())

    def interrupt() -> None:
        waiting(s, 1)
        os.kill(os.getpid(), signal.SIGUSR1)
        waiting(s, 2)
        s.release(2)

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with thread(interrupt):
            got = s.acquire(timeout=60)
            if pids == [0]:
                os._exit(0 if got else 1)
            assert got
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
    assert s.value == 0


def test_a_waiter_that_is_killed_takes_no_permit() -> None:
    s = pylocks.Semaphore(0)
    with forked(s.acquire, s.acquire) as (first, second):
        waiting(s, 2)
        first.kill()
        s.release()
        assert second.wait() == 0
    assert s.acquire(False) is False
    s.release()
    assert s.value == 1


def test_owned_permits_come_back(name: str) -> None:
    s = pylocks.Semaphore(3, owned=True)
    s.acquire()

    def hold() -> None:
        assert s.acquire() and s.acquire()
        time.sleep(100)

    with forked(hold) as (child,):
        until(lambda: s.value == 0, "all to be taken")
        with forked(s.acquire) as (waiter,):
            waiting(s, 1)
            child.kill()
            assert waiter.wait() == 0
    assert s.acquire(timeout=60) and s.acquire(timeout=60)
    s.release(3)
    assert s.value == 3


def test_owned_permits_come_back_for_one_who_does_not_wait() -> None:
    s = pylocks.Semaphore(1, owned=True)

    def end_holding() -> None:
        s.acquire()

    with forked(end_holding) as (child,):
        child.wait()
    until(lambda: s.acquire(False), "the permit to come back")


def test_an_owned_permit_is_its_threads() -> None:
    s = pylocks.Semaphore(2, owned=True)
    assert s.owned and not pylocks.Semaphore().owned
    with pytest.raises(pylocks.NotOwnerError):
        s.release()
    s.acquire()
    with pytest.raises(pylocks.NotOwnerError):
        s.release(2)
    refused = []

    def release() -> None:
        try:
            s.release()
        except pylocks.NotOwnerError as error:
            refused.append(error)

    with thread(release):
        pass
    assert len(refused) == 1
    s.release()
    assert s.value == 2


def test_a_thread_can_hold_permits_of_32_semaphores() -> None:
    domain = pylocks.Domain()
    held = [pylocks.Semaphore(owned=True, domain=domain) for _ in range(33)]
    for s in held[:32]:
        assert s.acquire()
    with pytest.raises(pylocks.DomainFullError, match="as many objects as it can"):
        held[32].acquire()
    held[0].release()
    assert held[32].acquire()
    with pytest.raises(pylocks.DomainBusyError):
        domain.close()
    for s in held[1:]:
        s.release()
    domain.close()
