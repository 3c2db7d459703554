"""Locks that are taken in both orders are told of, once, before anybody waits for ever."""

from __future__ import annotations

import gc
import pickle
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest
from support.child import in_child

import pylocks
from pylocks._lock import OrderedLock

WAYS: dict[str, Callable[[pylocks.TicketLock], object]] = {
    "acquire": lambda lock: lock.acquire(),
    "keywords": lambda lock: lock.acquire(blocking=True, timeout=30),
    "with": lambda lock: lock.__enter__(),
    "within": lambda lock: lock.within(30).__enter__(),
    "repair": lambda lock: lock.repair().__enter__(),
}


@pytest.fixture
def domain() -> Iterator[pylocks.Domain]:
    with pylocks.Domain(check_order=True) as made:
        yield made


def three(domain: pylocks.Domain, policy: str = "fifo") -> list[pylocks.TicketLock]:
    return [pylocks.TicketLock(name, domain=domain, policy=policy) for name in ("one", "two", "three")]


def told(*locks: pylocks.TicketLock) -> list[str]:
    """Take them one inside the other; what is told of it."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for lock in locks:
            lock.acquire()
        for lock in reversed(locks):
            lock.release()
    assert all(issubclass(each.category, pylocks.LockOrderWarning) for each in caught)
    assert all(each.filename == __file__ for each in caught)
    return [str(each.message) for each in caught]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("policy", ["fifo", "bounded"])
def test_the_other_order_is_told_of_once(domain: pylocks.Domain, way: str, policy: str) -> None:
    one, two, _ = three(domain, policy)
    assert told(one, two) == told(one, two) == []
    with two:
        with pytest.warns(pylocks.LockOrderWarning) as caught:
            WAYS[way](one)
        one.release()
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "'one'" in text and "'two'" in text and text.count(f"{__file__}:") == 2
    assert told(two, one) == told(one, two) == []


def test_a_way_round_by_others_counts(domain: pylocks.Domain) -> None:
    one, two, three_ = three(domain)
    assert told(one, two) == told(two, three_) == []
    (text,) = told(three_, one)
    assert all(repr(name) in text for name in ("one", "two", "three"))
    assert told(one, two, three_) == told(three_, one) == []


def test_the_order_is_that_of_all_threads(domain: pylocks.Domain) -> None:
    one, two, _ = three(domain)
    thread = threading.Thread(target=told, args=(one, two))
    thread.start()
    thread.join()
    assert len(told(two, one)) == 1


def test_what_a_thread_does_not_hold_any_more_does_not_count(domain: pylocks.Domain) -> None:
    one, two, _ = three(domain)
    assert told(one, two) == []
    two.acquire()
    two.release()
    assert told(one) == []
    with two:
        assert in_child(lambda: told(one)) == []  # a fork inherits no lock
    one.acquire()
    one.release()
    assert len(told(two, one)) == 1


def test_who_does_not_wait_closes_no_cycle_but_holds(domain: pylocks.Domain) -> None:
    one, two, _ = three(domain)
    assert told(one, two) == []
    with two:
        for arguments in ({"blocking": False}, {"timeout": 0}):
            assert one.acquire(**arguments)
            one.release()
    assert two.acquire(blocking=False)
    assert len(told(one)) == 1
    two.release()


def test_several_handles_are_one_lock(domain: pylocks.Domain) -> None:
    one, two, _ = three(domain)
    assert told(one, two) == []
    again = [domain.lock("two"), pickle.loads(pickle.dumps(one))]
    assert len(told(*again)) == 1
    assert told(two, one) == []


def test_a_lock_where_another_one_was_is_another_lock(domain: pylocks.Domain) -> None:
    first, second = (pylocks.TicketLock(domain=domain) for _ in range(2))
    assert told(first, second) == []
    index = first.index
    assert told(second) == []  # else the first is still known as the last that was taken
    del first
    gc.collect()
    first = pylocks.TicketLock(domain=domain)
    assert first.index == index
    assert told(second, first) == []


def test_locks_of_several_domains(domain: pylocks.Domain) -> None:
    with pylocks.Domain(check_order=True) as other:
        here, there = domain.lock("same"), other.lock("same")
        assert told(here, there) == []
        (text,) = told(there, here)
        assert "'same'" in text


def test_as_an_error_it_comes_before_the_lock(domain: pylocks.Domain) -> None:
    one, two, _ = three(domain)
    assert told(one, two) == []
    with two, pytest.raises(pylocks.LockOrderWarning), warnings.catch_warnings():
        warnings.simplefilter("error")
        with one:
            pytest.fail("entered")  # pragma: no cover
    assert not one.locked()


def test_a_refused_acquisition_is_not_held(domain: pylocks.Domain) -> None:
    one, two, _ = three(domain)
    with two:
        with pytest.raises(pylocks.AlreadyOwnerError):
            two.acquire()
        for wrong in ((1, 2, 3), (False, 1.0)):
            with pytest.raises((TypeError, ValueError)):
                one.acquire(*wrong)
        assert not one.locked()
    assert told(one, two) == []


def test_handles_are_what_they_are_elsewhere(domain: pylocks.Domain) -> None:
    class Mine(pylocks.TicketLock):
        pass

    lock = domain.lock("one")
    assert isinstance(lock, OrderedLock) and isinstance(lock, pylocks.TicketLock)
    assert repr(lock) == "<pylocks.TicketLock 'one': free>"
    assert type(domain.lock("two")) is type(lock) is type(domain.locks()[0])
    assert isinstance(Mine(domain=domain), Mine) and isinstance(Mine(domain=domain), OrderedLock)
    assert not lock.held()
    with lock:
        assert lock.held()


def test_where_it_is_not_asked_for_nothing_looks(name: str) -> None:
    with pylocks.Domain(name) as domain:
        lock = domain.lock("one")
        assert type(lock) is pylocks.TicketLock and not isinstance(lock, OrderedLock)
        assert told(lock, domain.lock("two")) == told(domain.lock("two"), lock) == []
        assert pylocks.Domain(name, check_order=True) is domain
        assert domain.checks_order and isinstance(domain.lock("one"), OrderedLock)
        assert type(lock) is pylocks.TicketLock
        assert pylocks.Domain(name).checks_order
