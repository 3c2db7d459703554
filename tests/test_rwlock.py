"""RWLock: phases, deaths of readers and writers, and what would wait for itself."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.child import in_child
from support.puppet import KINDS, START_METHODS, Puppet, Troupe, troupe
from support.tasks import Tally
from support.wait import until

import pylocks


def side(lock: pylocks.RWLock, which: str) -> Any:
    return getattr(lock, which)


def enter(lock: pylocks.RWLock, which: str, timeout: float | None = None) -> bool:
    return bool(side(lock, which).acquire(timeout=timeout))


def attempt(lock: pylocks.RWLock, which: str) -> bool:
    return bool(side(lock, which).acquire(False))


def enter_quietly(lock: pylocks.RWLock, which: str) -> list[str]:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        assert side(lock, which).acquire()
    return [each.category.__name__ for each in told]


def leave(lock: pylocks.RWLock, which: str) -> None:
    side(lock, which).release()


def mend(lock: pylocks.RWLock) -> None:
    lock.mark_consistent()


@pytest.fixture
def lock(name: str) -> pylocks.RWLock:
    return pylocks.RWLock("prices", domain=pylocks.Domain(name))


@pytest.fixture
def cast(lock: pylocks.RWLock) -> Iterator[Troupe]:
    with troupe("fork", lock) as made:
        yield made


def inside(lock: pylocks.RWLock) -> tuple[int, int]:
    """(readers, writers)."""
    writes = [owner.writes for owner in lock.owners]
    return writes.count(False), writes.count(True)


def queued(cast: Troupe, sides: str) -> list[Puppet]:
    """One waiter a letter, in this order."""
    puppets = cast.puppets(len(sides))
    for puppet, letter in zip(puppets, sides, strict=True):
        cast.queue([puppet], enter, {"r": "read", "w": "write"}[letter])
    return puppets


# ------------------------------------------------------------------- who is inside


@pytest.mark.parametrize("kind", KINDS)
def test_many_read_and_one_writes(kind: str, lock: pylocks.RWLock) -> None:
    with troupe(kind, lock) as made:
        one, two = made.puppets(2)
        for puppet in (one, two):
            assert puppet.call(enter, "read")
        assert inside(lock) == (2, 0) and {owner.pid for owner in lock.owners} == {one.pid, two.pid}
        with lock.read:
            assert inside(lock) == (3, 0)
        assert not attempt(lock, "write")
        for puppet in (one, two):
            puppet.call(leave, "read")
        with lock.write as entered:
            assert entered is lock and inside(lock) == (0, 1)
            assert not one.call(attempt, "read") and not two.call(attempt, "write")
        assert inside(lock) == (0, 0)


@pytest.mark.parametrize("kind", START_METHODS)
def test_it_is_the_same_wherever_it_was_sent(kind: str) -> None:
    lock = pylocks.RWLock()
    with troupe(kind, lock) as made, lock.write:
        (puppet,) = made.puppets(1)
        assert not puppet.call(attempt, "read")
        made.queue([puppet], enter, "read")
        lock.write.release()
        assert puppet.finish() is True
        puppet.call(leave, "read")
        lock.write.acquire()


def count(lock: pylocks.RWLock, path: str, times: int) -> int:
    """Write a tenth of the time; the writes."""
    tally, writes = Tally(path), 0
    for i in range(times):
        if i % 10 == 0:
            with lock.write:
                tally.add(1e-6)
                writes += 1
        else:
            with lock.read:
                before = tally.value
                assert tally.value == before
    return writes


def test_nobody_writes_beside_another(cast: Troupe, tmp_path: Any) -> None:
    path = tmp_path / "tally"
    tally = Tally.create(path)
    puppets = cast.puppets(4)
    for puppet in puppets:
        puppet.start(count, str(path), 300)
    assert sum(puppet.finish() for puppet in puppets) == tally.value == 120
    assert inside(cast.lock) == (0, 0) and cast.lock.waiters == 0


# --------------------------------------------------------------------------- phases


def test_a_reader_waits_behind_a_writer_that_waits(cast: Troupe) -> None:
    with cast.lock.read:
        writer, reader = queued(cast, "wr")
        assert not cast.guest().call(attempt, "read")
    assert writer.finish() and reader.busy
    writer.call(leave, "write")
    assert reader.finish()
    reader.call(leave, "read")


def test_a_writer_lets_in_all_readers_that_wait_then_the_next_writer(cast: Troupe) -> None:
    with cast.lock.write:
        one, writer, two, next_writer, three = queued(cast, "rwrwr")
    for reader in (one, two, three):
        assert reader.finish()
    assert inside(cast.lock) == (3, 0) and writer.busy
    (late,) = queued(cast, "r")
    for reader in (one, two, three):
        assert writer.busy
        reader.call(leave, "read")
    assert writer.finish() and late.busy
    writer.call(leave, "write")
    assert late.finish() and next_writer.busy
    late.call(leave, "read")
    assert next_writer.finish()
    next_writer.call(leave, "write")


def test_readers_get_on_if_the_writer_before_them_gives_up(cast: Troupe) -> None:
    with cast.lock.read:
        (writer,) = cast.puppets(1)
        cast.queue([writer], enter, "write", 0.3)
        (reader,) = queued(cast, "r")
        assert writer.finish() is False
        assert reader.finish() is True
        reader.call(leave, "read")


def test_more_readers_than_are_woken_at_once(lock: pylocks.RWLock) -> None:
    barrier = threading.Barrier(70)

    def read() -> None:
        with lock.read:
            barrier.wait(60)  # all of them are inside

    threads = [threading.Thread(target=read) for _ in range(70)]
    with lock.write:
        for thread in threads:
            thread.start()
        until(lambda: lock.waiters == 70, "all to wait")
    for thread in threads:
        thread.join()
    assert not barrier.broken


# ----------------------------------------------------------------------------- death


def test_a_dead_reader_has_left(cast: Troupe) -> None:
    victim, other = cast.puppets(2)
    assert victim.call(enter, "read") and other.call(enter, "read")
    (writer,) = queued(cast, "w")
    victim.kill()
    assert writer.busy
    other.call(leave, "read")
    assert writer.finish() is True
    assert not cast.lock.owner_died
    writer.call(leave, "write")


def test_a_dead_reader_does_not_keep_an_arrival_out(cast: Troupe) -> None:
    (victim,) = cast.puppets(1)
    assert victim.call(enter, "read")
    victim.kill()
    until(lambda: attempt(cast.lock, "write"), "the way in")
    cast.lock.write.release()


def test_a_writers_death_is_told_until_somebody_has_mended(cast: Troupe) -> None:
    (victim,) = cast.puppets(1)
    assert victim.call(enter, "write")
    one, two = cast.puppets(2)
    cast.queue([one, two], enter_quietly, "read")
    (writer,) = cast.puppets(1)
    cast.queue([writer], enter_quietly, "write")
    victim.kill()
    for reader in (one, two):
        assert reader.finish() == ["OwnerDiedWarning"]
        with pytest.raises(pylocks.NotOwnerError):
            reader.call(mend)
        reader.call(leave, "read")
    assert writer.finish() == ["OwnerDiedWarning"] and cast.lock.owner_died
    writer.call(mend)
    writer.call(leave, "write")
    assert not cast.lock.owner_died
    assert enter_quietly(cast.lock, "write") == []
    leave(cast.lock, "write")


def test_a_warning_that_raises_lets_go(lock: pylocks.RWLock) -> None:
    in_child(lambda: enter(lock, "write"), killed=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for which in ("read", "write"):
            with pytest.raises(pylocks.OwnerDiedWarning, match="RWLock 'prices'"):
                side(lock, which).acquire()
    assert inside(lock) == (0, 0)


@pytest.mark.parametrize("sides", ("w", "r", "wr", "ww", "rwr"))
def test_dead_waiters_are_passed_over(cast: Troupe, sides: str) -> None:
    with cast.lock.write:
        dead = queued(cast, sides)
        writer, reader = queued(cast, "wr")
        for puppet in dead:
            puppet.kill()
    assert reader.finish() and writer.busy
    reader.call(leave, "read")
    assert writer.finish()
    writer.call(leave, "write")


@pytest.mark.parametrize("letter", "rw")
def test_who_died_before_it_had_woken_was_never_inside(cast: Troupe, letter: str) -> None:
    with cast.lock.write:
        (victim,) = queued(cast, letter)
        victim.halt()
    assert sum(inside(cast.lock)) == 1
    (writer,) = queued(cast, "w")
    victim.kill()
    assert writer.finish() is True and not cast.lock.owner_died
    writer.call(leave, "write")


def test_a_thread_that_ends_inside_has_left(lock: pylocks.RWLock) -> None:
    for which, died in (("read", False), ("write", True)):
        thread = threading.Thread(target=enter, args=(lock, which))
        thread.start()
        thread.join()
        until(lambda: not lock.owners or not lock.owners[0].alive, "its end")
        assert enter_quietly(lock, "write") == ["OwnerDiedWarning"] * died
        lock.mark_consistent()
        leave(lock, "write")


# -------------------------------------------------------- once more, errors, signals


def test_a_reader_may_read_once_more_even_if_a_writer_waits(cast: Troupe) -> None:
    lock = cast.lock
    with lock.read:
        (writer,) = queued(cast, "w")
        with lock.read, lock.read.within(60):
            assert inside(lock) == (1, 0)
        assert writer.busy
    assert writer.finish()
    writer.call(leave, "write")


@pytest.mark.parametrize(("first", "second"), (("read", "write"), ("write", "read"), ("write", "write")))
def test_what_would_wait_for_itself_is_refused(lock: pylocks.RWLock, first: str, second: str) -> None:
    with side(lock, first):
        for timeout in (None, 0, 5):
            with pytest.raises(pylocks.AlreadyOwnerError, match="inside already"):
                enter(lock, second, timeout)
        assert sum(inside(lock)) == 1
    assert inside(lock) == (0, 0)


@pytest.mark.parametrize("which", ("read", "write"))
def test_only_who_is_inside_leaves(lock: pylocks.RWLock, which: str) -> None:
    other = {"read": "write", "write": "read"}[which]
    with pytest.raises(pylocks.NotOwnerError):
        leave(lock, which)
    with side(lock, which):
        with pytest.raises(pylocks.NotOwnerError):
            leave(lock, other)
        with pytest.raises(pylocks.NotOwnerError):
            in_child(lambda: leave(lock, which))
    with pytest.raises(pylocks.NotOwnerError):
        lock.mark_consistent()


def test_ctrl_c_ends_a_wait(cast: Troupe) -> None:
    holder, sender = cast.puppets(2)
    assert holder.call(enter, "write")
    for which in ("read", "write"):
        sender.start(interrupt_waiter, os.getpid())
        with pytest.raises(KeyboardInterrupt):
            enter(cast.lock, which)
        sender.finish()
        assert cast.lock.waiters == 0
    holder.call(leave, "write")
    assert inside(cast.lock) == (0, 0)


def interrupt_waiter(lock: pylocks.RWLock, pid: int) -> None:
    until(lambda: lock.waiters == 1, "the waiter")
    os.kill(pid, signal.SIGINT)


def test_within(cast: Troupe) -> None:
    (holder,) = cast.puppets(1)
    assert holder.call(enter, "write")
    for which in ("read", "write"):
        with (
            pytest.raises(TimeoutError, match=r"not acquired within 0\.01 s"),
            side(cast.lock, which).within(0.01),
        ):
            raise AssertionError("entered")
    holder.call(leave, "write")
    with cast.lock.write.within(60):
        assert inside(cast.lock) == (0, 1)


def test_names(name: str) -> None:
    domain = pylocks.Domain(name)
    made = pylocks.RWLock("prices", domain=domain)
    assert pylocks.RWLock("prices", domain=domain).index == made.index
    assert pickle.loads(pickle.dumps(made)).index == made.index
    assert "'prices': free" in repr(made)
    with made.read:
        assert "1 reading" in repr(made)
    with made.write:
        assert f"written by thread {threading.get_native_id()}" in repr(made)
        with pytest.raises(pylocks.DomainBusyError):
            domain.close()


BAD: dict[str, tuple[Callable[[], Any], type[Exception]]] = {
    "name": (lambda: pylocks.RWLock(5, domain=pylocks.Domain()), TypeError),  # type: ignore[arg-type]
    "empty name": (lambda: pylocks.RWLock("", domain=pylocks.Domain()), ValueError),
    "timeout": (lambda: pylocks.RWLock().read.acquire(timeout="1"), TypeError),  # type: ignore[arg-type]
    "both": (lambda: pylocks.RWLock().write.acquire(False, 1), ValueError),
    "within": (lambda: pylocks.RWLock().read.within(-1), ValueError),
    "no within": (lambda: pylocks.RWLock().read.within(None), TypeError),  # type: ignore[arg-type]
    "keyword": (lambda: pylocks.RWLock().read.acquire(wait=1), TypeError),  # type: ignore[call-arg]
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(what: str) -> None:
    call, error = BAD[what]
    with pytest.raises(error):
        call()


def test_a_closed_domain_is_told_of() -> None:
    domain = pylocks.Domain()
    lock = pylocks.RWLock(domain=domain)
    domain.close()
    for use in (lock.read.acquire, lock.write.release, lambda: lock.owner_died, lock.mark_consistent):
        with pytest.raises(pylocks.ClosedError):
            use()
    assert "closed" in repr(lock)
