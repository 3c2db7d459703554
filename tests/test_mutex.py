"""Mutex, which stands for multiprocessing.Lock: anybody may release it, and its holder is known."""

from __future__ import annotations

import os
import pickle
import time
import warnings

import pytest
from support.syncs import forked, thread, waiting
from support.wait import until

import pylocks
from pylocks.mutex import Mutex


def test_it_is_a_lock() -> None:
    m = Mutex()
    assert not m.locked() and m.owner is None
    assert m.acquire() is True and m.locked()
    assert m.acquire(False) is False and m.acquire(timeout=0.001) is False
    m.release()
    with m as entered:
        assert entered is True
    with m.within(60) as entered:
        assert entered is m
        with pytest.raises(TimeoutError), m.within(0.001):
            raise AssertionError("entered")
    with pytest.raises(ValueError, match="nobody holds it"):
        m.release()


def test_its_holder_is_known() -> None:
    m = Mutex()
    with m:
        owner = m.owner
        assert owner is not None and owner.pid == os.getpid() and owner.alive
        assert f"process {os.getpid()}" in repr(m)
    assert repr(m).endswith(": free>")


def test_any_process_may_release_it() -> None:
    m = Mutex()
    m.acquire()
    with thread(lambda: m.acquire(timeout=60) and m.release()):
        waiting(m, 1)
        with forked(m.release) as (child,):
            assert child.wait() == 0
    assert not m.locked()


def test_a_second_acquire_by_the_holder_waits_for_another_to_release() -> None:
    m = Mutex()
    m.acquire()

    def release() -> None:
        waiting(m, 1)
        m.release()

    with thread(release):
        assert m.acquire(timeout=60)
    m.release()


def test_a_waiter_gets_what_a_dead_holder_held() -> None:
    m = Mutex()

    def hold() -> None:
        m.acquire()
        time.sleep(100)

    def take() -> None:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert m.acquire(timeout=60)
        assert [w.category for w in told] == [pylocks.OwnerDiedWarning]
        m.release()

    with forked(hold) as (holder,):
        until(m.locked, "it to be held")
        with forked(take) as (waiter,):
            waiting(m, 1)
            holder.kill()
            assert waiter.wait() == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert m.acquire(False)  # told once


def test_one_who_does_not_wait_gets_it_too_and_is_told() -> None:
    m = Mutex()
    with forked(m.acquire) as (child,):
        child.wait()
    owner = m.owner
    assert owner is not None and not owner.alive
    with pytest.warns(pylocks.OwnerDiedWarning, match="half-done"):
        until(lambda: m.acquire(False), "the lock to come back")
    m.release()


def test_a_warning_that_is_an_error_leaves_it_free() -> None:
    m = Mutex()
    with forked(m.acquire) as (child,):
        child.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(pylocks.OwnerDiedWarning):
            m.acquire(timeout=60)
    assert not m.locked()


def test_exclusion_between_processes() -> None:
    m = Mutex()
    inside = pylocks.Semaphore(0)

    def work() -> None:
        for _ in range(2000):
            with m:
                inside.release()
                assert inside.value == 1
                assert inside.acquire(False)

    with forked(work, work, work) as children:
        assert [child.wait() for child in children] == [0, 0, 0]


def test_names_and_pickles(name: str) -> None:
    with pylocks.Domain(name) as domain:
        m = Mutex(name="m", domain=domain)
        with pickle.loads(pickle.dumps(m)):
            assert Mutex(name="m", domain=domain).locked()
        with pytest.raises(pylocks.WrongKindError, match="is a Mutex"):
            domain.lock("m")


def test_a_closed_domain() -> None:
    domain = pylocks.Domain()
    m = Mutex(domain=domain)
    domain.close()
    for use in (m.acquire, m.release, m.locked, lambda: m.holder):
        with pytest.raises(pylocks.ClosedError):
            use()
