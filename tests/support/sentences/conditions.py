"""Condition."""

from __future__ import annotations

import time
from typing import Any

from support.sentences.kit import LONG, SHORT, Kit, Party, Tally, raises, sentence
from support.wait import until


def _wait(condition: Any, tally: Tally, timeout: float | None = None) -> Any:
    with condition:
        tally.add()
        return condition.wait(timeout)


def _waiting(kit: Kit, condition: Any, count: int, timeout: float | None = None) -> list[Party]:
    """So many who wait for it."""
    tally = kit.tally()
    others = [kit.go(_wait, condition, tally, timeout) for _ in range(count)]

    def all_wait() -> bool:
        with condition:  # whoever has counted itself lets go of the lock by waiting
            return tally.value == count

    until(all_wait, f"{count} waiters")
    return others


@sentence(
    "Condition",
    "If the lock argument is given and not None, it must be a Lock or RLock object, and it is used as the "
    "underlying lock.",
)
def a_lock_is_used(kit: Kit) -> None:
    for make in (kit.Lock, kit.RLock):
        lock = make()
        condition = kit.Condition(lock)
        with condition:
            assert kit.of_another(lock.acquire, False) is False
        (other,) = _waiting(kit, condition, 1)
        with lock:
            condition.notify()
        assert other.result() is True


@sentence("Condition", "Otherwise, a new RLock object is created and used as the underlying lock.")
def the_default_is_recursive(kit: Kit) -> None:
    condition = kit.Condition()
    with condition, condition:
        assert kit.of_another(condition.acquire, False) is False


@sentence(
    "Condition",
    "Using the with statement acquires the associated lock for the duration of the enclosed block.",
)
def is_a_context(kit: Kit) -> None:
    condition = kit.Condition()
    with condition:
        assert kit.of_another(condition.acquire, False) is False
    assert kit.of_another(lambda: (condition.acquire(False), condition.release())) == (True, None)


@sentence(
    "Condition",
    "The acquire() and release() methods also call the corresponding methods of the associated lock.",
)
def acquire_and_release(kit: Kit) -> None:
    lock = kit.RLock()
    condition = kit.Condition(lock)
    assert condition.acquire() is True
    assert kit.of_another(lock.acquire, False) is False
    assert condition.release() is None
    with lock:
        assert kit.of_another(condition.acquire, False) is False
    raises(kit.unowned, condition.release)


@sentence(
    "Condition",
    "The wait() method releases the lock, and then blocks until another thread awakens it by "
    "calling notify() "
    "or notify_all().",
)
def wait_releases_the_lock(kit: Kit) -> None:
    condition = kit.Condition()
    for awaken in (condition.notify, condition.notify_all):
        (other,) = _waiting(kit, condition, 1)
        other.blocks()
        with condition:
            awaken()
        assert other.result() is True


@sentence("Condition", "Once awakened, wait() re-acquires the lock and returns.")
def wait_acquires_the_lock_again(kit: Kit) -> None:
    condition, tally, more = kit.Condition(), kit.tally(), kit.Semaphore(0)

    def wait_and_hold() -> bool:
        with condition:
            tally.add()
            condition.wait()
            tally.add()
            more.acquire()
            return True

    other = kit.go(wait_and_hold)
    until(lambda: tally.value == 1, "the waiter")
    with condition:
        condition.notify()
    until(lambda: tally.value == 2, "it to be awakened")
    assert condition.acquire(False) is False
    more.release()
    assert other.result() is True


@sentence(
    "Condition",
    "The notify() method wakes up one of the threads waiting for the condition variable, if any are waiting.",
)
def notify_wakes_one(kit: Kit) -> None:
    condition = kit.Condition()
    with condition:
        condition.notify()  # to nobody, and not kept
    others = _waiting(kit, condition, 3)
    while others:
        with condition:
            condition.notify()
        done = kit.one(others)
        assert done.result() is True
        others.remove(done)


@sentence("Condition", "The notify_all() method wakes up all threads waiting for the condition variable.")
def notify_all_wakes_all(kit: Kit) -> None:
    condition = kit.Condition()
    with condition:
        condition.notify_all()
    others = _waiting(kit, condition, 4)
    with condition:
        condition.notify_all()
    assert [other.result() for other in others] == [True] * 4


@sentence(
    "Condition",
    "The notify() and notify_all() methods don't release the lock; this means that the thread or threads "
    "awakened will not return from their wait() call immediately, but only when the thread that called "
    "notify() or notify_all() finally relinquishes ownership of the lock.",
)
def notify_keeps_the_lock(kit: Kit) -> None:
    condition = kit.Condition()
    others = _waiting(kit, condition, 2)
    with condition:
        condition.notify_all()
        for other in others:
            other.blocks()
        assert kit.of_another(condition.acquire, False) is False
    assert [other.result() for other in others] == [True] * 2


@sentence(
    "Condition",
    "If the calling thread has not acquired the lock when this method is called, a RuntimeError is raised.",
)
def all_need_the_lock(kit: Kit) -> None:
    condition = kit.Condition()
    calls = (
        condition.wait,
        condition.notify,
        condition.notify_all,
        lambda: condition.wait_for(lambda: False),
    )
    for call in calls:
        raises(kit.unowned, call)
    other = kit.go(lambda: [bool(raises(kit.unowned, call)) for call in calls])
    with condition:
        assert other.result() == [True] * 4


@sentence("Condition", "The return value is True unless a given timeout expired, in which case it is False.")
def wait_times_out(kit: Kit) -> None:
    condition = kit.Condition()
    with condition:
        began = time.monotonic()
        assert condition.wait(SHORT) is False
        assert time.monotonic() - began >= SHORT
        assert kit.of_another(condition.acquire, False) is False
    (other,) = _waiting(kit, condition, 1, LONG)
    with condition:
        condition.notify()
    assert other.result() is True


@sentence(
    "Condition",
    "When the underlying lock is an RLock, it is not released using its release() method, since this may not "
    "actually unlock the lock when it was acquired multiple times recursively. Instead, an "
    "internal interface "
    "of the RLock class is used, which really unlocks it even when it has been recursively acquired several "
    "times. Another internal interface is then used to restore the recursion level when the "
    "lock is reacquired.",
)
def an_rlock_is_released_in_full(kit: Kit) -> None:
    lock, tally = kit.RLock(), kit.tally()
    condition = kit.Condition(lock)

    def deep() -> bool:
        with lock, condition, condition:
            tally.add()
            done: bool = condition.wait(LONG)
            for _ in range(2):
                lock.release()
            tally.add()
            for _ in range(2):
                lock.acquire()
        return done

    other = kit.go(deep)

    def waits() -> bool:
        with lock:
            return tally.value == 1

    until(waits, "the waiter")
    with lock:
        condition.notify()
    assert other.result() is True
    assert lock.acquire(False) is True
    lock.release()


@sentence(
    "Condition",
    "wait_for: wait until a condition evaluates to true; the return value is the last of the predicate.",
)
def wait_for(kit: Kit) -> None:
    condition, tally = kit.Condition(), kit.tally()
    with condition:
        assert condition.wait_for(lambda: "at once") == "at once"

    def waiter() -> int:
        with condition:
            found: int = condition.wait_for(lambda: tally.value if tally.value >= 3 else 0)
            return found

    other = kit.go(waiter)
    for _ in range(3):
        other.blocks()
        with condition:
            tally.add()
            condition.notify_all()
    assert other.result() == 3


@sentence(
    "Condition",
    "This utility method may call wait() repeatedly until the predicate is satisfied, or until a timeout "
    "occurs. The return value will evaluate to False if the method timed out.",
)
def wait_for_times_out(kit: Kit) -> None:
    condition = kit.Condition()
    with condition:
        began = time.monotonic()
        assert not condition.wait_for(lambda: 0, SHORT)
        assert time.monotonic() - began >= SHORT
        assert condition.wait_for(lambda: True, timeout=0) is True


@sentence(
    "Condition",
    "The lock must be held when called and is re-acquired on return. The predicate is "
    "evaluated with the lock held.",
)
def the_predicate_has_the_lock(kit: Kit) -> None:
    condition = kit.Condition()
    seen: list[bool] = []

    def predicate() -> bool:
        seen.append(kit.of_another(condition.acquire, False))
        return len(seen) == 2

    def notify() -> None:
        with condition:
            condition.notify()

    with condition:
        kit.go(notify)  # as soon as the first wait lets it in
        assert condition.wait_for(predicate, LONG)
        assert kit.of_another(condition.acquire, False) is False
    assert seen == [False, False]


@sentence(
    "Condition",
    "This method wakes up at most n of the threads waiting for the condition variable; it is a no-op if no "
    "threads are waiting.",
)
def notify_many(kit: Kit) -> None:
    condition = kit.Condition()
    with condition:
        condition.notify(2)
    others = _waiting(kit, condition, 3)
    with condition:
        condition.notify(2)
    until(lambda: sum(other.ended for other in others) == 2, "two of them")
    (last,) = (other for other in others if not other.ended)
    last.blocks()
    with condition:
        condition.notify(2)
    assert [other.result() for other in others] == [True] * 3
