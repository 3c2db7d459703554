"""Semaphore and BoundedSemaphore: permits, order, death, names, bad input."""

from __future__ import annotations

import concurrent.futures
import gc
import multiprocessing
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.syncs import KINDS, forked, thread, waiting
from support.wait import until

import pylocks
from pylocks._core import lib


@pytest.fixture(params=KINDS)
def make(request: pytest.FixtureRequest) -> Callable[..., pylocks.Semaphore]:
    return KINDS[request.param]


# ---------------------------------------------------------------- permits


def test_there_are_as_many_permits_as_it_began_with(make: Any) -> None:
    s = make(2)
    assert s.value == 2
    assert s.acquire() is True
    with s as entered:
        assert entered is True
        assert s.value == 0
        assert s.acquire(False) is False
        assert s.acquire(timeout=0.001) is False
        assert s.acquire(blocking=True, timeout=0) is False
    assert s.value == 1
    s.release()
    assert s.value == 2 and s.waiters == 0


def test_one_by_default(make: Any) -> None:
    assert make().value == 1


def test_a_timeout_is_not_early(make: Any) -> None:
    s = make(0) if make is not KINDS["owned"] else make(1)
    if s.value:
        s.acquire()
    began = time.monotonic()
    assert not s.acquire(timeout=0.05)
    assert time.monotonic() - began >= 0.05
    assert s.waiters == 0


def test_within(make: Any) -> None:
    s = make(1)
    with s.within(10) as entered:
        assert entered is s
        with (
            pytest.raises(TimeoutError, match=r"was not acquired within 0\.001 s"),
            s.within(0.001),
        ):
            raise AssertionError("entered without a permit")
    assert s.value == 1
    for bad in (-1, float("nan")):
        with pytest.raises(ValueError, match=r"within\(\) needs seconds"):
            s.within(bad)
    with pytest.raises(TypeError):
        s.within("soon")
    with pytest.raises(ValueError, match=r"within\(\) needs seconds"):
        s.within(None)


def test_release_of_several() -> None:
    s = pylocks.Semaphore(0)
    s.release(3)
    s.release(n=2)
    assert s.value == 5
    with pytest.raises(ValueError, match="one or more, not 0"):
        s.release(0)
    with pytest.raises(ValueError, match="one or more"):
        s.release(-1)
    with pytest.raises(TypeError):
        s.release("1")
    with pytest.raises(TypeError):
        s.release(1, 2)
    with pytest.raises(TypeError):
        s.release(m=1)
    assert s.value == 5


def test_a_bounded_one_is_not_released_too_often() -> None:
    s = pylocks.BoundedSemaphore(2)
    with pytest.raises(ValueError, match="at most"):
        s.release()
    s.acquire()
    with pytest.raises(ValueError, match="at most"):
        s.release(2)
    s.release()
    assert s.value == 2


def test_no_more_than_fit() -> None:
    s = pylocks.Semaphore(0x7FFFFFFF)
    with pytest.raises(OverflowError):
        s.release()
    assert s.value == 0x7FFFFFFF


@pytest.mark.parametrize("value", [-1, 2**31, 2**80])
def test_a_value_that_can_not_be(value: int) -> None:
    with pytest.raises(ValueError, match="permits"):
        pylocks.Semaphore(value)


def test_a_value_of_another_type() -> None:
    with pytest.raises(TypeError, match="an int, not str"):
        pylocks.Semaphore("1")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((1, 2, 3), TypeError), ((True, "x"), TypeError), ((True, -2), ValueError), ((False, 1), ValueError),
     ((True, 1e30), OverflowError)],
)  # fmt: skip
def test_wrong_arguments_of_acquire(make: Any, arguments: tuple[Any, ...], error: type[Exception]) -> None:
    s = make(1)
    with pytest.raises(error):
        s.acquire(*arguments)
    assert s.value == 1


def test_any_thread_may_release() -> None:
    s = pylocks.Semaphore(1)
    s.acquire()
    with forked(s.release) as (child,):
        assert child.wait() == 0
    assert s.acquire(timeout=30)


# ---------------------------------------------------------------- waiting


def test_a_waiter_gets_what_another_process_releases() -> None:
    s, done = pylocks.Semaphore(0), pylocks.Semaphore(0)

    def take() -> None:
        assert s.acquire()
        done.release()

    with forked(take, take) as children:
        waiting(s, 2)
        s.release(2)
        assert [child.wait() for child in children] == [0, 0]
    assert (s.value, done.value, s.waiters) == (0, 2, 0)


def test_who_waits_is_woken_in_order_of_arrival() -> None:
    """[Y1] Whoever gives sees who waits."""
    s, order, turn = pylocks.Semaphore(0), [], pylocks.Semaphore(0)

    def take(number: int) -> None:
        s.acquire()
        order.append(number)
        turn.release()

    threads = []
    for number in range(6):
        threads.append(threading.Thread(target=take, args=(number,)))
        threads[-1].start()
        waiting(s, number + 1)
    for _ in threads:
        s.release()
        assert turn.acquire(timeout=60)
    for one in threads:
        one.join(60)
    assert order == list(range(6))


def test_nobody_is_passed_by_for_long() -> None:
    """Two take it in turns as fast as they can; a third waits all the same not for ever."""
    s, stop = pylocks.Semaphore(1), pylocks.Event()

    def busy() -> None:
        while not stop.is_set():
            with s:
                pass

    with forked(busy, busy):
        for _ in range(20):
            assert s.acquire(timeout=60)
            s.release()
        stop.set()


def test_a_waiter_that_gives_up_leaves_its_place() -> None:
    s = pylocks.Semaphore(0)
    with forked(s.acquire) as (child,):
        waiting(s, 1)
        with thread(lambda: s.acquire(timeout=0.05)):
            pass
        waiting(s, 1)
        s.release()
        assert child.wait() == 0
    assert s.value == 0


# --------------------------------------------------- names, pickles, processes


def test_a_name_is_the_same_one_everywhere(name: str) -> None:
    with pylocks.Domain(name) as domain:
        s = pylocks.Semaphore(3, name="slots", domain=domain)
        again = pylocks.Semaphore(1, name="slots", domain=domain)
        s.acquire()
        assert again.value == 2 and again.index == s.index
        del s, again
        gc.collect()
        assert pylocks.Semaphore(name="slots", domain=domain).value == 2


def test_when_all_have_died_a_named_one_is_as_new(name: str) -> None:
    def use() -> None:
        s = pylocks.Semaphore(3, name="slots", domain=pylocks.Domain(name))
        s.acquire()
        s.acquire()

    with forked(use) as (child,):
        assert child.wait() == 0
    with pylocks.Domain(name) as domain:
        assert pylocks.Semaphore(1, name="slots", domain=domain).value == 3


def test_what_has_the_name_is_of_another_kind(name: str) -> None:
    with pylocks.Domain(name) as domain:
        pylocks.Semaphore(name="s", domain=domain)
        domain.lock("l")
        for wrong in (
            lambda: pylocks.BoundedSemaphore(name="s", domain=domain),
            lambda: pylocks.Semaphore(name="s", domain=domain, owned=True),
            lambda: pylocks.Event(name="s", domain=domain),
            lambda: domain.lock("s"),
        ):
            with pytest.raises(pylocks.WrongKindError, match=r"'s' of domain .* is a Semaphore"):
                wrong()
        with pytest.raises(pylocks.WrongKindError, match=r"'l' of domain .* is a lock"):
            pylocks.Semaphore(name="l", domain=domain)
        assert [lock.name for lock in domain.locks()] == ["l"]


@pytest.mark.parametrize("wrong", ["", "x" * 101])
def test_a_name_that_can_be_none(wrong: str) -> None:
    with pytest.raises(ValueError, match="name is 1 to 100 bytes"):
        pylocks.Semaphore(name=wrong, domain=pylocks.Domain())


def test_not_in_an_array() -> None:
    array = pylocks.LockArray(4)
    with pytest.raises(ValueError, match="is a LockArray"):
        pylocks.Semaphore(domain=array.domain)


def take_and_tell(s: pylocks.Semaphore, done: pylocks.Event) -> str:
    s.acquire()
    done.set()
    return repr(type(s))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_it_travels_to_any_process(make: Any, method: str) -> None:
    s, done = make(1), pylocks.Event()
    process = multiprocessing.get_context(method).Process(target=take_and_tell, args=(s, done))
    process.start()
    assert done.wait(60)
    process.join(60)
    assert process.exitcode == 0
    until(lambda: s.value == (1 if make is KINDS["owned"] else 0) or s.acquire(False), "its end to be seen")


def test_it_travels_to_the_tasks_of_a_pool() -> None:
    s, done = pylocks.BoundedSemaphore(4), pylocks.Event()
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(take_and_tell, s, done).result(60).endswith("BoundedSemaphore'>")
    assert s.value == 3


def test_a_pickle_is_the_same_one(make: Any) -> None:
    s = make(2)
    twin = pickle.loads(pickle.dumps(s))
    s.acquire()
    assert twin.value == 1 and type(twin) is type(s)


def test_a_pickle_of_one_that_has_gone() -> None:
    domain = pylocks.Domain()
    s = pylocks.Semaphore(domain=domain)
    data = pickle.dumps(s)
    domain.free_cell(s.index, lib.plk_forks_seen())
    with pytest.raises(pylocks.UnknownLockError, match="has been freed"):
        pickle.loads(data)


def test_the_memory_of_a_private_one_is_used_again() -> None:
    domain = pylocks.Domain(locks=2)
    for _ in range(10):
        s = pylocks.Semaphore(5, domain=domain)
        s.acquire()
        del s
        gc.collect()
    assert pylocks.Semaphore(5, domain=domain).value == 5


def test_no_room() -> None:
    domain = pylocks.Domain(locks=1)
    kept = pylocks.Semaphore(domain=domain)
    with pytest.raises(pylocks.DomainFullError):
        pylocks.Semaphore(domain=domain)
    assert kept.acquire()


def test_a_closed_domain(make: Any) -> None:
    domain = pylocks.Domain()
    s = make(1, domain=domain)
    domain.close()
    for use in (s.acquire, s.release, lambda: s.value, lambda: s.waiters):
        with pytest.raises(pylocks.ClosedError):
            use()
    assert "closed" in repr(s)


def test_no_slot_for_a_waiter() -> None:
    """Whoever has none can take and give what needs no waiting, and nothing is lost."""
    domain = pylocks.Domain(vcpus=1)
    s = pylocks.Semaphore(1, domain=domain)
    lock = pylocks.TicketLock(domain=domain)
    with lock:
        failed = []

        def use() -> None:
            assert s.acquire()
            try:
                s.acquire(timeout=1)
            except pylocks.DomainFullError as error:
                failed.append(error)

        with thread(use):
            pass
    assert len(failed) == 1
    s.release()
    assert s.value == 1


def test_repr() -> None:
    s = pylocks.Semaphore(3)
    assert repr(s).startswith("<pylocks.Semaphore ") and repr(s).endswith(": 3 left, 0 waiting>")
    assert repr(pylocks.BoundedSemaphore()).startswith("<pylocks.BoundedSemaphore ")
