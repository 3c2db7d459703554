"""What Python programs hear of the death of a holder, and how they put things in order."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest
from conftest import POLICIES
from support import tasks
from support.child import in_child
from support.puppet import troupe
from support.stage import handler
from support.wait import until

import pylocks
from pylocks.locks import lock_at


@pytest.fixture(params=POLICIES)
def lock(name: str, request: pytest.FixtureRequest) -> pylocks.TicketLock:
    return pylocks.TicketLock("orders", domain=pylocks.Domain(name), policy=request.param)


@pytest.fixture
def array() -> pylocks.LockArray:
    return pylocks.LockArray(4)


@pytest.fixture
def refusing(lock: pylocks.TicketLock) -> pylocks.TicketLock:
    """Another handle of the lock, through which acquiring raises."""
    return lock_at(lock.domain, lock.index, lock.name, "raise")


def bereave(lock: pylocks.TicketLock) -> int:
    """A process dies while it holds the lock; its pid."""

    def die() -> int:
        lock.repair().__enter__()
        return os.getpid()

    pid: int = in_child(die, killed=True)
    return pid


def silently(acquire: Callable[[], Any]) -> list[str]:
    """The warnings that came with an acquisition."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert acquire()
    return [warning.category.__name__ for warning in told]


# ------------------------------------------------------------------ by a warning


def test_the_next_holder_is_warned(lock: pylocks.TicketLock, name: str) -> None:
    bereave(lock)
    with pytest.warns(pylocks.OwnerDiedWarning, match="died while it held") as told:
        assert lock.acquire() is True
    assert len(told) == 1
    assert told[0].filename == __file__
    for part in ("'orders'", repr(name), "mark_consistent()"):
        assert part in str(told[0].message)
    assert lock.owner_died is True
    assert lock.owner is not None and lock.owner.pid == os.getpid()
    lock.release()


def test_every_holder_is_warned_until_one_has_put_things_in_order(lock: pylocks.TicketLock) -> None:
    bereave(lock)
    for _ in range(3):
        assert silently(lock.acquire) == ["OwnerDiedWarning"]
        lock.release()
        assert lock.owner_died is True
    assert in_child(lambda: (lock.owner_died, silently(lock.acquire))) == (True, ["OwnerDiedWarning"])
    assert silently(lock.acquire) == ["OwnerDiedWarning"]
    lock.mark_consistent()
    assert lock.owner_died is False
    lock.release()
    assert silently(lock.acquire) == []
    lock.mark_consistent()  # once more, or for nothing, is no error
    lock.release()
    assert in_child(lambda: (lock.owner_died, silently(lock.acquire), lock.release())) == (False, [], None)


def test_only_the_holder_says_that_things_are_in_order(lock: pylocks.TicketLock) -> None:
    bereave(lock)
    until(lambda: lock.domain.recover() >= 0 and lock.owner_died, "the recovery")
    with pytest.raises(pylocks.NotOwnerError, match="not held by this thread"):
        lock.mark_consistent()
    with troupe("threads", lock) as made:
        (holder,) = made.puppets(1)
        assert holder.call(tasks.acquire_silently) is True
        with pytest.raises(pylocks.NotOwnerError):
            lock.mark_consistent()
        assert lock.owner_died
        holder.call(tasks.mark_consistent)
        assert not lock.owner_died
        holder.call(tasks.release)


ACQUIRES: dict[str, Callable[[pylocks.TicketLock], Any]] = {
    "acquire": lambda lock: lock.acquire(),
    "try": lambda lock: _tried(lambda: lock.acquire(False)),
    "no time": lambda lock: _tried(lambda: lock.acquire(timeout=0)),
    "timed": lambda lock: lock.acquire(timeout=300),
    "with": lambda lock: lock.__enter__(),
    "within": lambda lock: lock.within(300).__enter__(),
    "array": lambda lock: _array(lock).acquire(lock.index),
    "array timed": lambda lock: _array(lock).acquire(lock.index, timeout=300),
    "array try": lambda lock: _tried(lambda: _array(lock).acquire(lock.index, False)),
}


def _tried(attempt: Callable[[], bool]) -> bool:
    until(attempt, "a try to succeed")
    return True


def _array(lock: pylocks.TicketLock) -> pylocks.LockArray:
    made = pylocks.locks._array_of(lock.domain, lock.on_owner_death)
    assert len(made) == lock.domain.lock_limit
    return made


@pytest.mark.parametrize("how", ACQUIRES)
@pytest.mark.parametrize("recovered", (False, True), ids=("found", "recovered"))
def test_all_ways_to_acquire_warn_or_refuse(recovered: bool, how: str, array: pylocks.LockArray) -> None:
    for lock in (array[2], lock_at(array.domain, 2, on_owner_death="raise")):
        bereave(lock)
        if recovered:
            assert array.domain.recover() == 1
        if lock.on_owner_death == "warn":
            assert silently(lambda lock=lock: ACQUIRES[how](lock)) == ["OwnerDiedWarning"]  # type: ignore[misc]
            lock.mark_consistent()
            lock.release()
        else:
            with pytest.raises(pylocks.OwnerDiedError, match="lock 2 of"):
                ACQUIRES[how](lock)
            assert (lock.locked(), lock.owner, lock.owner_died) == (False, None, True)
            with pytest.raises(pylocks.NotOwnerError):
                lock.release()
        with lock.repair():
            pass
    assert not array[2].owner_died


def test_all_who_waited_are_warned_until_one_repairs(lock: pylocks.TicketLock) -> None:
    with troupe("fork", lock) as made:
        heirs, (victim,) = made.puppets(4), made.puppets(1)
        victim.call(tasks.acquire)
        made.queue(heirs[:2], tasks.warned_visit)
        made.queue(heirs[2:3], tasks.succeed, None)
        made.queue(heirs[3:], tasks.warned_visit)
        victim.kill()
        assert [heir.finish() for heir in heirs[:2]] == [["OwnerDiedWarning"]] * 2
        assert heirs[2].finish()[0] is True
        assert heirs[3].finish() == []
    assert not lock.owner_died


def test_a_second_death_is_told_like_the_first(lock: pylocks.TicketLock) -> None:
    for _ in range(3):
        bereave(lock)
    assert silently(lock.acquire) == ["OwnerDiedWarning"]
    lock.mark_consistent()
    lock.release()
    bereave(lock)
    assert silently(lock.acquire) == ["OwnerDiedWarning"]
    lock.mark_consistent()
    lock.release()


# ------------------------------------------------------------------ warnings that are errors


def test_where_warnings_are_errors_the_lock_is_not_kept(lock: pylocks.TicketLock) -> None:
    bereave(lock)
    with troupe("fork", lock) as made, warnings.catch_warnings():
        (other,) = made.puppets(1)
        warnings.simplefilter("error", pylocks.OwnerDiedWarning)
        for acquire in (lock.acquire, lock.__enter__, lock.within(300).__enter__):
            with pytest.raises(pylocks.OwnerDiedWarning, match="died while it held"):
                acquire()
            assert not lock.locked()
            with pytest.raises(pylocks.NotOwnerError):
                lock.release()
        with pytest.raises(pylocks.OwnerDiedWarning), lock:
            pytest.fail("entered")
        made.queue([], tasks.succeed, None)
        assert other.call(tasks.succeed, None)[0] is True
    assert silently(lock.acquire) == []
    lock.release()


def test_a_handler_that_raises_while_the_warning_is_shown(
    lock: pylocks.TicketLock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The exception comes out, and the lock is not kept."""

    class Ring(Exception):
        pass

    def ring() -> None:
        raise Ring

    def show(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGUSR1)

    bereave(lock)
    monkeypatch.setattr(warnings, "showwarning", show)
    with handler(signal.SIGUSR1, ring), warnings.catch_warnings():
        warnings.simplefilter("always")
        monkeypatch.setattr(warnings, "_showwarnmsg_impl", show)
        with pytest.raises(Ring):
            lock.acquire()
    assert not lock.locked()
    with lock.repair():
        assert lock.owner_died


# ------------------------------------------------------------------ by an error


def test_a_lock_that_refuses(lock: pylocks.TicketLock, refusing: pylocks.TicketLock) -> None:
    assert (lock.on_owner_death, refusing.on_owner_death) == ("warn", "raise")
    with refusing:
        pass
    bereave(lock)
    for _ in range(2):
        with pytest.raises(pylocks.OwnerDiedError, match=r"'orders'.*repair\(\)"):
            refusing.acquire()
        assert (lock.locked(), lock.waiters) == (False, 0)
    with pytest.raises(pylocks.OwnerDiedError), refusing:
        pytest.fail("entered")
    with refusing.repair() as entered:
        assert entered is refusing
        assert refusing.owner_died
    with refusing:
        assert not refusing.owner_died
    assert not lock.locked()


def test_refusing_passes_the_lock_on(refusing: pylocks.TicketLock) -> None:
    """To the next in line, who is refused as well; until one comes to repair."""
    with troupe("fork", refusing) as made:
        (victim,), heirs = made.puppets(1), made.puppets(3)
        victim.call(tasks.acquire)
        made.queue(heirs[:2], tasks.acquire)
        made.queue(heirs[2:], tasks.succeed, None)
        victim.kill()
        for heir in heirs[:2]:
            with pytest.raises(pylocks.OwnerDiedError):
                heir.finish()
        assert heirs[2].finish()[0] is True
        assert heirs[0].call(tasks.acquire) is True
        heirs[0].call(tasks.release)


def test_how_to_choose() -> None:
    domain = pylocks.Domain()
    for make in (
        lambda: pylocks.TicketLock(domain=domain, on_owner_death="raise"),
        lambda: pylocks.TicketLock("orders", domain=domain, on_owner_death="raise"),
        lambda: pylocks.LockArray(3, on_owner_death="raise")[1],
        lambda: next(iter(pylocks.LockArray(3, on_owner_death="raise"))),
    ):
        lock = make()
        for each in (lock, pickle.loads(pickle.dumps(lock))):
            assert each.on_owner_death == "raise"
            bereave(each)
            with pytest.raises(pylocks.OwnerDiedError):
                each.acquire()
            with each.repair():
                pass
    made = pylocks.LockArray(3, on_owner_death="raise")
    array = pickle.loads(pickle.dumps(made))
    bereave(array[1])
    with pytest.raises(pylocks.OwnerDiedError):
        array.acquire(1)
    with array[1].repair():
        pass


@pytest.mark.parametrize("bad", ("", "ignore", "error", None, 1))
def test_no_such_choice(bad: Any) -> None:
    for make in (
        lambda: pylocks.TicketLock(on_owner_death=bad),
        lambda: pylocks.LockArray(2, on_owner_death=bad),
    ):
        with pytest.raises(ValueError, match="on_owner_death is 'warn', 'raise', not"):
            make()


# ------------------------------------------------------------------ repair


def test_repair_marks_only_what_was_repaired(lock: pylocks.TicketLock) -> None:
    """A block that raises has not put things in order."""
    bereave(lock)
    with pytest.raises(ZeroDivisionError), lock.repair():
        assert lock.owner_died
        raise ZeroDivisionError
    assert (lock.owner_died, lock.locked()) == (True, False)
    with lock.repair():
        assert lock.owner_died
    assert (lock.owner_died, lock.locked()) == (False, False)
    with lock.repair(0):  # of a sound lock: entered like any
        assert lock.locked()
    assert (lock.owner_died, lock.locked()) == (False, False)


def test_repair_has_a_time_limit(lock: pylocks.TicketLock) -> None:
    with troupe("threads", lock) as made:
        (holder,) = made.puppets(1)
        holder.call(tasks.acquire)
        for seconds in (0, 0.01):
            with pytest.raises(TimeoutError, match="not acquired within"), lock.repair(seconds):
                pytest.fail("entered")
        holder.call(tasks.release)
    for bad in (-1, float("nan"), "soon"):
        with pytest.raises((ValueError, TypeError)):
            lock.repair(bad)  # type: ignore[arg-type]
    assert not lock.locked()


def test_releasing_inside_repair(lock: pylocks.TicketLock) -> None:
    """Then nothing is marked: the lock is somebody else's by the end of the block."""
    bereave(lock)
    with pytest.raises(pylocks.NotOwnerError), lock.repair():
        lock.release()
    assert lock.owner_died
    with lock.repair():
        pass


# ------------------------------------------------------------------ what the flag sticks to


def test_the_next_lock_in_the_cell_has_nothing_of_it() -> None:
    """A lock that nobody shares is freed after a thread died holding it."""

    def scenario() -> list[Any]:
        domain = pylocks.Domain(locks=1)
        lock = pylocks.TicketLock(domain=domain)
        thread = threading.Thread(target=lock.acquire)
        thread.start()
        thread.join()
        until(lambda: domain.recover() == 1, "the recovery")
        assert lock_at(domain, 0).owner_died
        del lock
        heir = pylocks.TicketLock(domain=domain)
        return [heir.index, heir.owner_died, silently(heir.acquire)]

    assert in_child(scenario) == [0, False, []]


def test_a_closed_domain_says_so(lock: pylocks.TicketLock) -> None:
    lock.domain.close()
    for use in (lambda: lock.owner_died, lock.mark_consistent, lock.domain.recover, lock.repair().__enter__):
        with pytest.raises(pylocks.ClosedError):
            use()


def test_what_recover_answers(lock: pylocks.TicketLock) -> None:
    assert lock.domain.recover() == 0
    bereave(lock)
    bereave(lock.domain.lock("bills"))  # which takes over the slot of the one before it, or not
    assert 1 <= lock.domain.recover() <= 2
    assert lock.domain.recover() == 0
    for each in lock.domain.locks():
        assert each.owner_died and not each.locked()
        with each.repair():
            pass


def test_the_owner_is_shown_as_dead(lock: pylocks.TicketLock) -> None:
    pid = bereave(lock)
    owner = lock.owner
    assert owner is not None
    assert (owner.pid, owner.alive) == (pid, False)
    assert [(v.pid, v.alive, v.held) for v in lock.domain.vcpus()] == [(pid, False, 1)]
    lock.domain.recover()
    assert (lock.owner, lock.domain.vcpus()) == (None, ())
