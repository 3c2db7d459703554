"""RLock."""

from __future__ import annotations

from typing import Any

from support.sentences.kit import LONG, SHORT, Kit, raises, sentence


def _cycle(lock: Any) -> bool:
    taken: bool = lock.acquire()
    lock.release()
    return taken


@sentence("RLock", "A reentrant lock may be acquired multiple times by the same thread.")
def acquired_many_times(kit: Kit) -> None:
    lock = kit.RLock()
    assert [lock.acquire() for _ in range(10)] == [True] * 10
    for _ in range(10):
        lock.release()


@sentence(
    "RLock", "In the locked state, some thread owns the lock; in the unlocked state, no thread owns it."
)
def one_owns_it(kit: Kit) -> None:
    lock = kit.RLock()
    raises(kit.unowned, lock.release)
    lock.acquire()
    assert kit.of_another(lock.acquire, False) is False
    lock.release()
    raises(kit.unowned, lock.release)


@sentence("RLock", "Reentrant locks support the context management protocol.")
def is_a_context(kit: Kit) -> None:
    lock = kit.RLock()
    with lock:
        with lock:
            assert kit.of_another(lock.acquire, False) is False
        assert kit.of_another(lock.acquire, False) is False
    assert kit.of_another(_cycle, lock) is True


@sentence("RLock", "acquire()/release() call pairs may be nested, unlike Lock.")
def pairs_nest(kit: Kit) -> None:
    lock = kit.RLock()
    for outer in (lock.acquire, lambda: lock.acquire(timeout=LONG)):
        assert outer() is True
        assert _cycle(lock) is True
        lock.release()
    assert kit.of_another(_cycle, lock) is True


@sentence(
    "RLock",
    "Only the final release() (the release() of the outermost pair) resets the lock to an unlocked state and "
    "allows another thread blocked in acquire() to proceed.",
)
def the_final_release_unlocks(kit: Kit) -> None:
    lock = kit.RLock()
    for _ in range(3):
        lock.acquire()
    other = kit.go(_cycle, lock)
    for _ in range(2):
        other.blocks()
        lock.release()
    other.blocks()
    lock.release()
    assert other.result() is True


@sentence("RLock", "If no thread owns the lock, acquire the lock and return immediately.")
def unowned_is_acquired(kit: Kit) -> None:
    lock = kit.RLock()
    for arguments in ((), (True,), (False,), (True, LONG)):
        assert lock.acquire(*arguments) is True
        lock.release()


@sentence(
    "RLock",
    "If another thread owns the lock, block until we are able to acquire lock, or timeout, if set to a "
    "positive float value.",
)
def owned_by_another_blocks(kit: Kit) -> None:
    lock = kit.RLock()
    lock.acquire()
    assert kit.of_another(lock.acquire, True, SHORT) is False
    others = [kit.go(_cycle, lock), kit.go(lambda: (lock.acquire(True, LONG), lock.release()))]
    for other in others:
        other.blocks()
    lock.release()
    assert [other.result() for other in others] == [True, (True, None)]


@sentence("RLock", "If the same thread owns the lock, acquire the lock again, and return immediately.")
def owned_by_itself_is_acquired_again(kit: Kit) -> None:
    lock = kit.RLock()
    ways = ((), (True,), (False,), (True, LONG), (True, 0))
    for arguments in ways:
        assert lock.acquire(*arguments) is True
    for _ in ways:
        assert kit.of_another(lock.acquire, False) is False
        lock.release()
    assert kit.of_another(_cycle, lock) is True


@sentence(
    "RLock",
    "When invoked with the blocking argument set to False: if another thread owns the lock, "
    "return immediately.",
)
def not_blocking(kit: Kit) -> None:
    lock = kit.RLock()
    with lock:
        assert kit.of_another(lock.acquire, False) is False


@sentence(
    "RLock",
    "In all cases, if the thread was able to acquire the lock, return True. If the thread was unable to "
    "acquire the lock (i.e. if not blocking or the timeout was reached) return False.",
)
def returns_whether_acquired(kit: Kit) -> None:
    lock = kit.RLock()
    assert [lock.acquire(), lock.acquire(False), lock.acquire(True, SHORT)] == [True] * 3
    assert kit.of_another(lambda: [lock.acquire(False), lock.acquire(True, SHORT)]) == [False] * 2
    for _ in range(3):
        lock.release()


@sentence(
    "RLock",
    "If after the decrement it is zero, reset the lock to unlocked (not owned by any thread), "
    "and if any other "
    "threads are blocked waiting for the lock to become unlocked, allow exactly one of them to proceed.",
)
def release_lets_one_proceed(kit: Kit) -> None:
    lock, tally = kit.RLock(), kit.tally()

    def count() -> int:
        with lock, lock:
            tally.add()
            return tally.value

    with lock:
        others = [kit.go(count) for _ in range(3)]
        others[0].blocks()
        assert tally.value == 0
    assert sorted(other.result() for other in others) == [1, 2, 3]


@sentence(
    "RLock",
    "If after the decrement the recursion level is still nonzero, the lock remains locked and owned by the "
    "calling thread.",
)
def it_remains_owned(kit: Kit) -> None:
    lock = kit.RLock()
    lock.acquire()
    lock.acquire()
    lock.release()
    assert kit.of_another(lock.acquire, False) is False
    lock.release()
    raises(kit.unowned, lock.release)


@sentence(
    "RLock",
    "Only call this method when the calling thread owns the lock. A RuntimeError is raised if this method is "
    "called when the lock is not acquired.",
)
def only_its_owner_releases(kit: Kit) -> None:
    lock = kit.RLock()
    raises(kit.unowned, lock.release)
    with lock:
        assert kit.of_another(lambda: isinstance(raises(kit.unowned, lock.release), Exception))
        assert kit.of_another(lock.acquire, False) is False


@sentence("RLock", "There is no return value.")
def release_returns_nothing(kit: Kit) -> None:
    lock = kit.RLock()
    lock.acquire()
    lock.acquire()
    assert (lock.release(), lock.release()) == (None, None)
