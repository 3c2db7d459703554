"""Condition: what becomes of its waiters when some of them die, are interrupted, or hold their lock deep."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.child import in_child
from support.puppet import START_METHODS, Puppet, Troupe, troupe
from support.stage import handler
from support.wait import until

import pylocks
from pylocks.locks import lock_at
from pylocks.mutex import Mutex, RMutex

LOCKS = (pylocks.TicketLock, pylocks.TicketRLock, Mutex, RMutex)


@pytest.fixture(params=LOCKS, ids=lambda kind: kind.__name__)
def condition(name: str, request: pytest.FixtureRequest) -> pylocks.Condition:
    lock = request.param(name="lock", domain=pylocks.Domain(name))
    return pylocks.Condition(lock, name="changed")


def wait(condition: pylocks.Condition, timeout: float | None = None) -> bool:
    with condition:
        return condition.wait(timeout)


def wait_quietly(condition: pylocks.Condition) -> tuple[bool, list[str]]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = wait(condition)
    return result, [each.category.__name__ for each in told]


def notify(condition: pylocks.Condition, n: int = 1) -> None:
    with condition:
        condition.notify(n)


def notify_all(condition: pylocks.Condition) -> None:
    with condition:
        condition.notify_all()


def notify_and_hold(condition: pylocks.Condition, n: int) -> None:
    condition.acquire()
    condition.notify(n)


def release(condition: pylocks.Condition) -> None:
    condition.release()


@pytest.fixture
def cast(condition: pylocks.Condition) -> Iterator[Troupe]:
    with troupe("fork", condition) as made:
        yield made


def queued(cast: Troupe, count: int) -> list[Puppet]:
    """So many who wait, in this order."""
    puppets = cast.puppets(count)
    cast.queue(puppets, wait)
    with cast.lock:  # who waits has let go of it
        pass
    return puppets


# ------------------------------------------------------------------- order, processes


def test_who_waited_first_is_notified_first(cast: Troupe) -> None:
    puppets = queued(cast, 4)
    for n in (1, 2):
        notify(cast.lock, n)
        assert [puppet.finish() for puppet in puppets[:n]] == [True] * n
        puppets = puppets[n:]
        assert all(puppet.busy for puppet in puppets) and cast.lock.waiters == len(puppets)
    notify(cast.lock, 100)
    assert puppets[0].finish() is True


@pytest.mark.parametrize("kind", START_METHODS)
def test_it_is_the_same_wherever_it_was_sent(kind: str) -> None:
    condition = pylocks.Condition()
    with troupe(kind, condition) as made:
        puppets = made.puppets(2)
        made.queue(puppets, wait)
        notify_all(condition)
        assert [puppet.finish() for puppet in puppets] == [True, True]
        made.queue(puppets[:1], wait)
        puppets[1].call(notify)
        assert puppets[0].finish() is True


def test_more_waiters_than_are_woken_at_once() -> None:
    condition = pylocks.Condition()
    threads = [threading.Thread(target=wait, args=(condition,)) for _ in range(70)]
    for thread in threads:
        thread.start()
    until(lambda: condition.waiters == 70, "all to wait")
    notify(condition, 40)
    until(lambda: sum(thread.is_alive() for thread in threads) == 30, "40 to go on")
    notify_all(condition)
    for thread in threads:
        thread.join()


def test_a_timeout_of_one_leaves_the_others_where_they_are(cast: Troupe) -> None:
    first, second, third = cast.puppets(3)
    cast.queue([first], wait)
    cast.queue([second], wait, 0.05)
    cast.queue([third], wait)
    assert second.finish() is False
    notify(cast.lock, 2)
    assert (first.finish(), third.finish()) == (True, True)


@pytest.mark.parametrize("timeout", (0, -1, -5.0))
def test_no_time_is_no_wait_but_lets_others_in(condition: pylocks.Condition, timeout: float) -> None:
    entered: list[bool] = []
    thread = threading.Thread(
        target=lambda: entered.append(condition.acquire() and condition.release() is None)
    )
    with condition:
        thread.start()
        until(lambda: condition.lock.waiters == 1, "another to want the lock")
        until(lambda: condition.wait(timeout) or entered, "it to get in")
    thread.join()


def test_an_rlock_is_restored_to_its_depth() -> None:
    condition = pylocks.Condition()
    with condition, condition, condition:
        thread = threading.Thread(target=notify, args=(condition,))
        thread.start()
        assert condition.wait(60) is True
        assert condition.lock.depth == 3
        assert condition.wait(0.001) is False
        assert condition.lock.depth == 3
    thread.join()
    assert condition.lock.depth == 0


# ------------------------------------------------------------------------ death


def test_dead_waiters_are_passed_over(cast: Troupe) -> None:
    puppets = queued(cast, 4)
    for puppet in puppets[:3]:
        puppet.kill()
    notify(cast.lock)
    assert puppets[3].finish() is True


def test_dead_waiters_do_not_hang_notify_all(cast: Troupe) -> None:
    puppets = queued(cast, 5)
    for puppet in puppets[::2]:
        puppet.kill()
    notify_all(cast.lock)
    assert [puppet.finish() for puppet in puppets[1::2]] == [True, True]
    assert cast.lock.waiters == 0


def test_a_notify_that_a_dead_one_had_not_taken_goes_on(cast: Troupe) -> None:
    """It is stopped, notified, and killed before it has seen that."""
    first, second, third = queued(cast, 3)
    first.halt()
    notify(cast.lock)
    assert cast.lock.waiters == 2 and second.busy
    first.kill()
    assert second.finish() is True
    assert third.busy and cast.lock.waiters == 1
    notify(cast.lock)
    assert third.finish() is True


def test_no_notify_goes_on_to_one_who_came_later(cast: Troupe) -> None:
    (first,) = queued(cast, 1)
    first.halt()
    notify(cast.lock)
    (later,) = queued(cast, 1)
    first.kill()
    cast.lock.domain.recover()
    time.sleep(0.1)
    assert later.busy and cast.lock.waiters == 1
    notify(cast.lock)
    assert later.finish() is True


def test_a_notifiers_death_is_told_to_whom_it_notified(cast: Troupe) -> None:
    """It dies with the lock: they return from wait() with the lock, and know."""
    notifier, first, second = cast.puppets(3)
    cast.queue([first, second], wait_quietly)
    notifier.call(notify_and_hold, 2)
    notifier.kill()
    told = [puppet.finish() for puppet in (first, second)]
    assert [result for result, _ in told] == [True, True]
    warnings_told = [name for _, names in told for name in names]
    if isinstance(cast.lock.lock, Mutex):  # that tells it once
        assert warnings_told == ["OwnerDiedWarning"]
    else:
        assert warnings_told == ["OwnerDiedWarning"] * 2 and cast.lock.lock.owner_died


def test_a_refusing_lock_is_held_when_wait_raises(name: str) -> None:
    domain = pylocks.Domain(name)
    condition = pylocks.Condition(pylocks.TicketLock("lock", domain=domain, on_owner_death="raise"))
    quiet = lock_at(domain, condition.lock.index)
    with troupe("fork", condition) as made:
        (notifier,) = made.puppets(1)
        notifier.call(release_after_waiter)
        with pytest.raises(pylocks.OwnerDiedError), condition:
            notifier.start(notify_and_die)
            condition.wait()
        notifier.lose()
    assert not quiet.locked() and quiet.owner_died


def release_after_waiter(condition: pylocks.Condition) -> None:
    """To have been here."""
    with condition:
        pass


def notify_and_die(condition: pylocks.Condition) -> None:
    notify_and_hold(condition, 1)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_fork_in_the_middle_of_a_wait_waits_for_itself(condition: pylocks.Condition) -> None:
    """A signal handler forks: the child is another waiter, and both are notified."""
    readable, writable = os.pipe()
    parent = os.getpid()

    def ring(*_: object) -> None:
        if os.fork() == 0:
            os.write(writable, b"f")

    with handler(signal.SIGUSR1, ring), troupe("fork", condition) as made:
        (sender,) = made.puppets(1)
        sender.start(signal_waiter, parent)
        sender_done = threading.Thread(target=notify_two, args=(condition,))
        with condition:
            sender_done.start()
            result = condition.wait()
        if os.getpid() != parent:
            os.write(writable, b"w" if result else b"?")
            os._exit(0)
        sender_done.join()
        sender.finish()
        assert result is True
        os.wait3(0)
    os.close(writable)
    with open(readable, "rb") as pipe:
        assert pipe.read() == b"fw"


def signal_waiter(condition: pylocks.Condition, pid: int) -> None:
    until(lambda: condition.waiters == 1, "the waiter")
    os.kill(pid, signal.SIGUSR1)


def notify_two(condition: pylocks.Condition) -> None:
    until(lambda: condition.waiters == 2, "both")
    notify_all(condition)


# --------------------------------------------------------------------- signals


def test_ctrl_c_ends_a_wait_with_the_lock_held(condition: pylocks.Condition) -> None:
    with troupe("fork", condition) as made:
        (sender,) = made.puppets(1)
        sender.start(interrupt_waiter, os.getpid())
        with condition:
            with pytest.raises(KeyboardInterrupt):
                condition.wait()
            assert made.guest("fork").call(try_lock) is False
        sender.finish()
    assert condition.waiters == 0


def interrupt_waiter(condition: pylocks.Condition, pid: int) -> None:
    until(lambda: condition.waiters == 1, "the waiter")
    os.kill(pid, signal.SIGINT)


def try_lock(condition: pylocks.Condition) -> bool:
    return condition.acquire(False)


def test_ctrl_c_while_the_lock_is_somebody_elses_waits_for_the_lock(condition: pylocks.Condition) -> None:
    """Notified, but the notifier keeps the lock; Ctrl-C comes: it is raised with the lock."""
    with troupe("fork", condition) as made:
        holder, sender = made.puppets(2)
        holder.start(notify_hold_and_interrupt, os.getpid())
        with condition:
            with pytest.raises(KeyboardInterrupt):
                condition.wait()
            assert made.guest("fork").call(try_lock) is False
        holder.finish()
        assert sender.call(try_lock) is True
        sender.call(release)


def notify_hold_and_interrupt(condition: pylocks.Condition, pid: int) -> None:
    until(lambda: condition.waiters == 1, "the waiter")
    with condition:
        condition.notify()
        until(lambda: condition.lock.waiters == 1, "it to want the lock")
        os.kill(pid, signal.SIGINT)
        time.sleep(0.05)


def test_a_handler_may_use_the_condition_that_it_interrupts() -> None:
    condition, seen = pylocks.Condition(), []

    def ring(*_: object) -> None:
        with condition:
            seen.append(condition.waiters)
            condition.notify_all()

    with troupe("fork", condition) as made, handler(signal.SIGUSR1, ring):
        (sender,) = made.puppets(1)
        sender.start(signal_waiter, os.getpid())
        assert wait(condition) is True
        sender.finish()
    assert seen == [1]


# -------------------------------------------------------------- names, bad input


def test_a_named_one_has_one_lock(name: str) -> None:
    domain = pylocks.Domain(name)
    made = pylocks.Condition(name="changed", domain=domain)
    again = pylocks.Condition(name="changed", domain=domain)
    assert isinstance(again.lock, RMutex) and again.lock.index == made.lock.index
    assert in_child(lambda: pylocks.Condition(name="changed", domain=domain).lock.index) == made.lock.index
    other = pylocks.TicketLock("other", domain=domain)
    with pytest.raises(ValueError, match=r"condition 'changed' .* has another lock"):
        pylocks.Condition(other, name="changed")
    assert pylocks.Condition(made.lock, name="changed").index == made.index
    assert "'changed': 0 waiting" in repr(made)


def test_two_conditions_share_a_lock() -> None:
    lock = pylocks.TicketLock()
    full, empty = pylocks.Condition(lock), pylocks.Condition(lock)
    thread = threading.Thread(target=wait, args=(full,))
    thread.start()
    until(lambda: full.waiters == 1, "the waiter")
    notify_all(empty)
    assert full.waiters == 1
    notify_all(full)
    thread.join()
    copy = pickle.loads(pickle.dumps((full, empty)))
    assert copy[0].lock is copy[1].lock and copy[0].lock.index == lock.index


BAD: dict[str, tuple[Callable[[], Any], type[Exception]]] = {
    "lock": (lambda: pylocks.Condition(threading.Lock()), TypeError),  # type: ignore[arg-type]
    "domain": (lambda: pylocks.Condition(pylocks.TicketLock(), domain=pylocks.Domain()), ValueError),
    "n": (lambda: notify(pylocks.Condition(), -1), ValueError),
    "n's type": (lambda: notify(pylocks.Condition(), "1"), TypeError),  # type: ignore[arg-type]
    "nan": (lambda: wait(pylocks.Condition(), float("nan")), ValueError),
    "timeout": (lambda: wait(pylocks.Condition(), "1"), TypeError),  # type: ignore[arg-type]
    "too long": (lambda: wait(pylocks.Condition(), 1e300), OverflowError),
    "name": (lambda: pylocks.Condition(name="", domain=pylocks.Domain()), ValueError),
    "release": (lambda: pylocks.Condition().release(), pylocks.NotOwnerError),
    "not held": (lambda: pylocks.Condition().wait_for(lambda: True), pylocks.NotOwnerError),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(what: str) -> None:
    call, error = BAD[what]
    with pytest.raises(error):
        call()


def test_what_has_the_name_is_something_else(name: str) -> None:
    domain = pylocks.Domain(name)
    pylocks.TicketLock("lock", domain=domain)
    pylocks.Event(name="event", domain=domain)
    pylocks.Condition(name="condition", domain=domain)
    for kind in ("lock", "event"):
        with pytest.raises(pylocks.WrongKindError, match=kind):
            pylocks.Condition(name=kind, domain=domain)
    with pytest.raises(pylocks.WrongKindError, match="Condition"):
        pylocks.TicketLock("condition", domain=domain)


def test_a_closed_domain_is_told_of() -> None:
    domain = pylocks.Domain()
    condition = pylocks.Condition(domain=domain)
    domain.close()
    for use in (condition.acquire, condition.wait, condition.notify, condition.notify_all):
        with pytest.raises(pylocks.ClosedError):
            use()
    assert "closed" in repr(condition)
