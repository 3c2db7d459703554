"""TicketLock: what a handle shows, its arguments, within() and names."""

from __future__ import annotations

import math
import os
import threading
import time
import weakref
from typing import Any

import pytest
from support import run, tasks
from support.puppet import troupe

import pylocks
from pylocks import locks


@pytest.fixture
def lock() -> pylocks.TicketLock:
    return pylocks.TicketLock()


# ------------------------------------------------------------------ what it shows


def test_a_free_lock(lock: pylocks.TicketLock) -> None:
    assert (lock.locked(), lock.owner, lock.waiters, lock.name) == (False, None, 0, None)
    assert isinstance(lock.domain, pylocks.Domain)
    assert 0 <= lock.index < lock.domain.lock_limit


def test_a_held_lock(lock: pylocks.TicketLock) -> None:
    before = lock.ticket
    assert lock.acquire() is True
    owner = lock.owner
    assert owner is not None
    assert (owner.pid, owner.tid, owner.alive) == (os.getpid(), threading.get_native_id(), True)
    assert owner.ticket == lock.ticket == before
    assert (lock.locked(), lock.waiters) == (True, 0)
    (me,) = (v for v in lock.domain.vcpus() if v.index == owner.vcpu)
    assert (me.index, me.held, me.waiting_for, me.parked, me.alive) == (owner.vcpu, 1, None, False, True)
    assert lock.release() is None  # type: ignore[func-returns-value]
    assert (lock.locked(), lock.owner, lock.ticket) == (False, None, before + 1)


def test_every_acquisition_has_a_ticket_of_its_own(lock: pylocks.TicketLock) -> None:
    tickets = []
    for arguments in ((), (False,), (True, 1)) * 3:
        assert lock.acquire(*arguments)
        tickets.append(lock.ticket)
        lock.release()
    assert tickets == list(range(tickets[0], tickets[0] + 9))


def test_waiters_are_counted(lock: pylocks.TicketLock) -> None:
    with troupe("threads", lock) as made, lock:
        first, second = made.puppets(2)
        made.queue([first, second], tasks.acquire)
        assert lock.waiters == 2
        waiting = {v.tid: v.ticket for v in lock.domain.vcpus() if v.waiting_for == lock.index}
        assert waiting == {first.tid: lock.ticket + 1, second.tid: lock.ticket + 2}
        lock.release()
        assert first.finish() is True
        assert lock.waiters == 1
        owner = lock.owner
        assert owner is not None and owner.tid == first.tid
        first.call(tasks.release)
        assert second.finish() is True
        second.call(tasks.release)
        lock.acquire()


def test_with_says_that_it_entered(lock: pylocks.TicketLock) -> None:
    with lock as entered:
        assert entered is True
        assert lock.locked()
    assert not lock.locked()


def test_repr(name: str) -> None:
    with pylocks.Domain(name) as domain:
        named, unnamed = domain.lock("orders"), pylocks.TicketLock(domain=domain)
        assert repr(named) == "<pylocks.TicketLock 'orders': free>"
        assert repr(unnamed) == f"<pylocks.TicketLock {unnamed.index} in domain {name!r}: free>"
        with named:
            held = f"held by thread {threading.get_native_id()} of process {os.getpid()}, 0 waiting"
            assert repr(named) == f"<pylocks.TicketLock 'orders': {held}>"
    assert repr(named) == "<pylocks.TicketLock 'orders': closed>"
    assert domain.uid.hex()[:8] in repr(pylocks.TicketLock(domain=pylocks.Domain(name)).domain)
    anonymous = pylocks.TicketLock()
    assert anonymous.domain.uid.hex()[:8] in repr(anonymous)


def test_a_handle_can_be_referred_to_weakly_and_has_no_room_for_typing_errors() -> None:
    lock = pylocks.TicketLock()
    reference = weakref.ref(lock)
    with pytest.raises(AttributeError):
        lock.nmae = "x"  # type: ignore[attr-defined]
    del lock
    assert reference() is None


# ------------------------------------------------------------------ arguments

BAD_ACQUIRES: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ((True, -2), {}, ValueError, "timeout"),
    ((), {"timeout": math.nan}, ValueError, "nan"),
    ((), {"timeout": -0.001}, ValueError, "-0.001"),
    ((), {"timeout": math.inf}, OverflowError, "None"),
    ((), {"timeout": 1e10}, OverflowError, "too large"),
    ((), {"timeout": "1"}, TypeError, "str"),
    ((False, 1), {}, ValueError, "blocking=False"),
    ((True, None, 3), {}, TypeError, "at most"),
    ((), {"timeuot": 1}, TypeError, "timeuot"),
    ((True,), {"blocking": True}, TypeError, "blocking"),
]


@pytest.mark.parametrize(("arguments", "keywords", "kind", "says"), BAD_ACQUIRES)
def test_bad_arguments_of_acquire(
    arguments: tuple[Any, ...], keywords: dict[str, Any], kind: type[Exception], says: str
) -> None:
    lock = pylocks.TicketLock()
    with pytest.raises(kind, match=says):
        lock.acquire(*arguments, **keywords)
    assert not lock.locked()


@pytest.mark.parametrize("timeout", (None, -1, 0, 0.0, 1, True, 3e9))
def test_good_timeouts(lock: pylocks.TicketLock, timeout: float | None) -> None:
    assert lock.acquire(timeout=timeout) is True
    lock.release()


def test_an_argument_that_raises(lock: pylocks.TicketLock) -> None:
    class Odd:
        def __bool__(self) -> bool:
            raise ArithmeticError

        __float__ = __bool__

    for keywords in ({"blocking": Odd()}, {"timeout": Odd()}):
        with pytest.raises(ArithmeticError):
            lock.acquire(**keywords)  # type: ignore[arg-type]
    assert not lock.locked()


@pytest.mark.parametrize(
    ("keywords", "kind"),
    [
        ({"policy": "lifo"}, ValueError),
        ({"create": False}, ValueError),
        ({"name": 5}, TypeError),
        ({"name": b"orders"}, TypeError),
        ({"name": ""}, ValueError),
        ({"name": "\udcff"}, ValueError),
    ],
)
def test_bad_arguments_of_the_constructor(keywords: dict[str, Any], kind: type[Exception]) -> None:
    with pylocks.Domain() as domain, pytest.raises(kind):
        pylocks.TicketLock(**keywords, domain=domain)


# ------------------------------------------------------------------ within


def test_within_enters_in_time(lock: pylocks.TicketLock) -> None:
    limited = lock.within(30)
    for _ in range(2):
        with limited as entered:
            assert entered is lock
            assert lock.locked()
        assert not lock.locked()


def test_within_never_enters_without_the_lock(lock: pylocks.TicketLock) -> None:
    with troupe("threads", lock) as made:
        (holder,) = made.puppets(1)
        holder.call(tasks.acquire)
        began = time.monotonic()
        with pytest.raises(TimeoutError, match=r"0\.05"), lock.within(0.05):
            pytest.fail("entered")
        assert time.monotonic() - began >= 0.05
        assert lock.owner is not None and lock.owner.tid == holder.tid
        with pytest.raises(TimeoutError), lock.within(0):
            pytest.fail("entered")
        holder.call(tasks.release)
    assert not lock.locked()


@pytest.mark.parametrize("seconds", (-1, -0.5, math.nan, "1"))
def test_within_refuses_what_is_no_time(lock: pylocks.TicketLock, seconds: Any) -> None:
    with pytest.raises((ValueError, TypeError)), lock.within(seconds):
        pytest.fail("entered")
    assert not lock.locked()


# ------------------------------------------------------------------ names


def test_a_name_is_one_lock(name: str) -> None:
    with pylocks.Domain(name) as domain:
        one, two = domain.lock("orders"), pylocks.TicketLock("orders", domain=domain)
        other = domain.lock("orders ")
        assert one.index == two.index != other.index
        with one:
            assert two.locked() and not other.locked()


def test_a_name_alone_means_the_users_domain(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    asked = []

    def record(domain: str, *, create: bool) -> pylocks.Domain:
        asked.append((domain, create))
        return pylocks.Domain(name, create=create)

    monkeypatch.setattr(locks, "Domain", record)
    with pytest.raises(pylocks.UnknownLockError, match="no named locks"):
        pylocks.TicketLock("orders", create=False)
    lock = pylocks.TicketLock("orders")
    again = pylocks.TicketLock("orders", create=False)
    assert lock.index == again.index and lock.domain is again.domain
    user = f"user.{os.geteuid()}"
    assert asked == [(user, False), (user, True), (user, False)]


def test_a_default_domain_that_was_closed_is_replaced() -> None:
    done = run.python(
        "-c",
        "import pylocks\n"
        "first = pylocks.TicketLock()\n"
        "first.domain.close()\n"
        "second = pylocks.TicketLock()\n"
        "with second: print(first.domain is second.domain, second.locked())",
    )
    assert done.check() == "False True\n"
