"""TicketRLock: its owner may acquire it again; in all else it is a TicketLock."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest
from conftest import POLICIES, segment_path
from support import header, tasks
from support.child import in_child
from support.puppet import KINDS, Troupe, troupe
from support.stage import handler

import pylocks
from pylocks.locks import lock_at


@pytest.fixture(params=POLICIES)
def lock(name: str, request: pytest.FixtureRequest) -> pylocks.TicketRLock:
    return pylocks.TicketRLock("orders", domain=pylocks.Domain(name), policy=request.param)


@pytest.fixture(params=KINDS)
def cast(lock: pylocks.TicketRLock, request: pytest.FixtureRequest) -> Iterator[Troupe]:
    with troupe(request.param, lock) as made:
        yield made


WAYS: dict[str, Callable[[pylocks.TicketLock], object]] = {
    "acquire": lambda lock: lock.acquire(),
    "try": lambda lock: lock.acquire(False),
    "timed": lambda lock: lock.acquire(timeout=300),
    "no time": lambda lock: lock.acquire(timeout=0),
    "with": lambda lock: lock.__enter__(),
    "within": lambda lock: lock.within(300).__enter__(),
    "repair": lambda lock: lock.repair().__enter__(),
    "another handle": lambda lock: lock_at(lock.domain, lock.index).acquire(),
    "a pickled handle": lambda lock: pickle.loads(pickle.dumps(lock)).acquire(),
}


@pytest.mark.parametrize("way", WAYS)
def test_its_owner_acquires_it_again_in_every_way(lock: pylocks.TicketRLock, way: str) -> None:
    assert lock.depth == 0
    with lock:
        ticket = lock.ticket
        assert WAYS[way](lock)
        assert (lock.depth, lock.ticket, lock.waiters, lock.locked()) == (2, ticket, 0, True)
        lock.release()
        assert lock.depth == 1
    assert (lock.depth, lock.locked(), lock.owner) == (0, False, None)


def test_others_get_it_when_it_was_released_as_often_as_acquired(cast: Troupe) -> None:
    lock = cast.lock
    (other,) = cast.puppets(1)
    for _ in range(5):
        lock.acquire()
    cast.queue([other], tasks.acquire)
    for _ in range(4):
        lock.release()
        assert other.busy and lock.owner.pid == os.getpid()
    lock.release()
    assert other.finish() is True
    assert (other.call(tasks.look, "depth"), lock.depth) == (1, 0)
    assert other.call(tasks.acquire, False) is True
    assert lock.acquire(False) is False
    assert lock.acquire(timeout=0.001) is False
    other.call(tasks.release)
    other.call(tasks.release)
    assert lock.acquire(False) is True
    lock.release()


def test_only_its_owner_releases_it(cast: Troupe) -> None:
    (other,) = cast.puppets(1)
    with pytest.raises(pylocks.NotOwnerError, match="not held by this thread; nobody holds it"):
        cast.lock.release()
    with cast.lock, cast.lock:
        with pytest.raises(pylocks.NotOwnerError, match=f"of process {os.getpid()}"):
            other.call(tasks.release)
        assert cast.lock.depth == 2
    with pytest.raises(pylocks.NotOwnerError):
        cast.lock.release()


@pytest.mark.parametrize("depth", (1, 4))
def test_death_at_any_depth_is_told_as_any_holders(lock: pylocks.TicketRLock, depth: int) -> None:
    def die() -> int:
        return [lock.acquire() for _ in range(depth)].count(True)

    assert in_child(die, killed=True) == depth
    with pytest.warns(pylocks.OwnerDiedWarning, match="'orders'") as told:
        assert lock.acquire() is True
    assert len(told) == 1 and lock.owner_died and lock.depth == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert lock.acquire() is True  # it has heard of it
    lock.release()
    lock.mark_consistent()
    lock.release()
    assert (lock.depth, lock.owner_died, lock.locked()) == (0, False, False)
    assert in_child(lambda: (lock.acquire(), lock.depth, lock.release())) == (True, 1, None)


def test_the_next_in_line_gets_a_killed_owners_lock(lock: pylocks.TicketRLock) -> None:
    with troupe("fork", lock) as made:
        owner, waiter = made.puppets(2)
        for _ in range(3):
            assert owner.call(tasks.acquire)
        made.queue([waiter], tasks.acquire_silently)
        owner.kill()
        assert waiter.finish() is True
        assert waiter.call(tasks.look, "owner_died") and waiter.call(tasks.look, "depth") == 1
        waiter.call(tasks.release)


def test_a_refusing_handle_is_entered_by_repair_alone(lock: pylocks.TicketRLock) -> None:
    refusing = pylocks.TicketRLock("orders", domain=lock.domain, on_owner_death="raise")
    in_child(lambda: (refusing.acquire(), refusing.acquire()), killed=True)
    for _ in range(2):
        with pytest.raises(pylocks.OwnerDiedError, match="repair"):
            refusing.acquire()
        assert refusing.depth == 0 and not refusing.locked()
    with refusing.repair(), refusing:  # inside, it may be acquired again as it is
        assert refusing.depth == 2
    with refusing:
        assert not refusing.owner_died


def test_a_forked_child_is_another_owner(lock: pylocks.TicketRLock) -> None:
    with lock, lock:
        assert in_child(lambda: (lock.depth, lock.acquire(False))) == (0, False)
        with pytest.raises(pylocks.NotOwnerError):
            in_child(lock.release)
        assert lock.depth == 2


def test_a_signal_handler_may_acquire_what_its_thread_holds(lock: pylocks.TicketRLock) -> None:
    seen = []

    def ring(*_: object) -> None:
        with lock:
            seen.append(lock.depth)

    with handler(signal.SIGUSR1, ring), lock:
        os.kill(os.getpid(), signal.SIGUSR1)
        while not seen:
            pass
        assert lock.depth == 1
    assert seen == [2]


def test_a_signal_handler_may_not_wait_for_what_its_thread_waits_for(lock: pylocks.TicketRLock) -> None:
    def ring(*_: object) -> None:
        lock.acquire()

    with troupe("fork", lock) as made, handler(signal.SIGUSR1, ring):
        holder, sender = made.puppets(2)
        holder.call(tasks.acquire)
        sender.start(tasks.signal_when_queued, 1, os.getpid(), signal.SIGUSR1)
        with pytest.raises(pylocks.AlreadyOwnerError, match="signal handler"):
            lock.acquire()
        sender.finish()
        holder.call(tasks.release)
        assert lock.depth == 0


def test_threading_conditions_take_it(lock: pylocks.TicketRLock) -> None:
    condition, done = threading.Condition(lock), []  # type: ignore[arg-type]

    def other() -> None:
        with condition:
            done.append(lock.depth)
            condition.notify()

    with condition, lock, lock:
        thread = threading.Thread(target=other)
        thread.start()
        assert condition.wait_for(lambda: done, 60)
        assert lock.depth == 3
    thread.join()
    assert done == [1]


def test_a_name_is_of_one_kind(name: str) -> None:
    domain = pylocks.Domain(name)
    pylocks.TicketLock("plain", domain=domain)
    made = pylocks.TicketRLock("deep", domain=domain)
    with pytest.raises(ValueError, match=f"lock 'deep' of domain '{name}' exists and is a TicketRLock"):
        pylocks.TicketLock("deep", domain=domain)
    with pytest.raises(ValueError, match=r"lock .plain. .* is not recursive"):
        pylocks.TicketRLock("plain", domain=domain)
    with pytest.raises(ValueError, match="policy='fifo'"):
        pylocks.TicketRLock("deep", domain=domain, policy="bounded")
    assert {type(each) for each in domain.locks()} == {pylocks.TicketLock, pylocks.TicketRLock}
    assert "TicketRLock 'deep': free" in repr(made)
    with made:
        assert f"TicketRLock 'deep': held by thread {threading.get_native_id()}" in repr(made)


def test_a_freed_cell_becomes_either_kind() -> None:
    with pylocks.Domain(locks=1) as domain:
        for kind in (pylocks.TicketLock, pylocks.TicketRLock, pylocks.TicketLock):
            lock = kind(domain=domain)
            with lock:
                assert type(lock) is kind and lock.index == 0
                if kind is pylocks.TicketRLock:
                    assert lock.acquire(False)
                    lock.release()
            del lock


@pytest.mark.parametrize(
    ("arguments", "error"),
    (
        ({"timeout": -5}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"timeout": 1e10}, OverflowError),
        ({"timeout": "1"}, TypeError),
        ({"blocking": False, "timeout": 1}, ValueError),
        ({"nonsense": 1}, TypeError),
    ),
)
def test_an_owner_is_refused_bad_arguments_as_anybody(
    lock: pylocks.TicketRLock, arguments: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        lock.acquire(**arguments)  # type: ignore[arg-type]
    with lock:
        with pytest.raises(error):
            lock.acquire(**arguments)  # type: ignore[arg-type]
        assert lock.depth == 1


def test_a_closed_domain_is_told_of() -> None:
    domain = pylocks.Domain()
    lock = pylocks.TicketRLock(domain=domain)
    with lock, lock, pytest.raises(pylocks.DomainBusyError):
        domain.close()
    domain.close()
    for use in (lock.acquire, lock.release, lambda: lock.depth, lambda: lock.ticket):
        with pytest.raises(pylocks.ClosedError):
            use()


def test_acquisitions_beyond_counting_are_refused(name: str) -> None:
    lock = pylocks.TicketRLock(domain=pylocks.Domain(name))
    path = segment_path(name)
    with lock:
        again = header.cell_at(path, lock.index) + 32  # behind the cell, in its line
        header.poke(path, again, (2**32 - 2).to_bytes(4, "little"))
        with pytest.raises(OverflowError, match="too often"):
            lock.acquire()
        header.poke(path, again, bytes(4))


def test_the_order_of_locks_is_not_changed_by_acquiring_again() -> None:
    with pylocks.Domain(check_order=True) as domain:
        outer, inner = pylocks.TicketRLock(domain=domain), pylocks.TicketLock(domain=domain)
        with outer, inner, outer, outer.within(1):
            assert outer.depth == 3
        with pytest.warns(pylocks.LockOrderWarning), inner, outer:
            assert outer.depth == 1
