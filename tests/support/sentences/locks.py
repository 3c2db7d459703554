"""Lock."""

from __future__ import annotations

import time
from typing import Any

from support.sentences.kit import LONG, SHORT, Kit, raises, sentence


def _cycle(lock: Any) -> bool:
    taken: bool = lock.acquire()
    lock.release()
    return taken


@sentence("Lock", "It is created in the unlocked state.")
def starts_unlocked(kit: Kit) -> None:
    lock = kit.Lock()
    assert lock.acquire(False) is True
    lock.release()


@sentence(
    "Lock", "When the state is unlocked, acquire() changes the state to locked and returns immediately."
)
def acquire_locks(kit: Kit) -> None:
    lock = kit.Lock()
    lock.acquire()
    assert kit.of_another(lock.acquire, False) is False
    lock.release()


@sentence(
    "Lock",
    "When the state is locked, acquire() blocks until a call to release() in another thread changes it to "
    "unlocked, then the acquire() call resets it to locked and returns.",
)
def acquire_blocks_until_released(kit: Kit) -> None:
    lock = kit.Lock()
    lock.acquire()
    other = kit.go(_cycle, lock)
    other.blocks()
    lock.release()
    assert other.result() is True


@sentence("Lock", "release() changes the state to unlocked and returns immediately.")
def release_unlocks(kit: Kit) -> None:
    lock = kit.Lock()
    lock.acquire()
    lock.release()
    assert kit.of_another(_cycle, lock) is True


@sentence("Lock", "If an attempt is made to release an unlocked lock, a RuntimeError will be raised.")
def releasing_unlocked_is_an_error(kit: Kit) -> None:
    lock = kit.Lock()
    raises(kit.unlocked, lock.release)
    _cycle(lock)
    raises(kit.unlocked, lock.release)


@sentence("Lock", "Locks also support the context management protocol.")
def is_a_context(kit: Kit) -> None:
    lock = kit.Lock()
    with lock:
        assert kit.of_another(lock.acquire, False) is False
    raises(ZeroDivisionError, lambda: _fail_inside(lock))
    assert kit.of_another(_cycle, lock) is True


def _fail_inside(lock: Any) -> None:
    with lock:
        _ = 1 // 0


@sentence(
    "Lock",
    "When more than one thread is blocked in acquire() waiting for the state to turn to unlocked, only one "
    "thread proceeds when a release() call resets the state to unlocked.",
)
def one_proceeds(kit: Kit) -> None:
    lock, inside = kit.Lock(), kit.Semaphore(0)

    def enter() -> bool:
        lock.acquire()
        inside.acquire()
        lock.release()
        return True

    lock.acquire()
    others = [kit.go(enter) for _ in range(3)]
    for other in others:
        other.blocks()
    lock.release()
    for left in range(3, 0, -1):
        assert sum(not other.ended for other in others) == left
        inside.release()
        done = kit.one(others)
        assert done.result() is True
        others.remove(done)


@sentence(
    "Lock",
    "When invoked with the blocking argument set to True (the default), block until the lock is unlocked, "
    "then set it to locked and return True.",
)
def blocking_is_the_default(kit: Kit) -> None:
    lock = kit.Lock()
    assert lock.acquire(True) is True
    others = [kit.go(_cycle, lock), kit.go(lambda: (lock.acquire(True), lock.release()))]
    for other in others:
        other.blocks()
    lock.release()
    assert [other.result() for other in others] == [True, (True, None)]


@sentence(
    "Lock",
    "When invoked with the blocking argument set to False, do not block. If a call with blocking set to True "
    "would block, return False immediately; otherwise, set the lock to locked and return True.",
)
def not_blocking(kit: Kit) -> None:
    lock = kit.Lock()
    assert lock.acquire(False) is True
    assert kit.of_another(lock.acquire, False) is False
    lock.release()
    assert kit.of_another(lambda: (lock.acquire(False), lock.release())) == (True, None)


@sentence(
    "Lock",
    "When invoked with the floating-point timeout argument set to a positive value, block for at most the "
    "number of seconds specified by timeout and as long as the lock cannot be acquired.",
)
def timeout(kit: Kit) -> None:
    lock = kit.Lock()
    lock.acquire()

    def late() -> tuple[bool, bool]:
        began = time.monotonic()
        return lock.acquire(timeout=SHORT), time.monotonic() - began >= SHORT

    assert kit.of_another(late) == (False, True)
    other = kit.go(lambda: (lock.acquire(timeout=LONG), lock.release()))
    other.blocks()
    lock.release()
    assert other.result() == (True, None)


@sentence("Lock", "A timeout argument of -1 specifies an unbounded wait.", "-1 is for ever")
def minus_one_is_unbounded(kit: Kit) -> None:
    lock = kit.Lock()
    lock.acquire()
    other = kit.go(lambda: (lock.acquire(timeout=-1), lock.release()))
    other.blocks()
    lock.release()
    assert other.result() == (True, None)


@sentence("Lock", "It is forbidden to specify a timeout when blocking is False.", "timeout refused")
def no_timeout_without_blocking(kit: Kit) -> None:
    lock = kit.Lock()
    raises(ValueError, lambda: lock.acquire(False, 1))
    assert _cycle(lock) is True


@sentence(
    "Lock",
    "The return value is True if the lock is acquired successfully, False if not (for example if the timeout "
    "expired).",
)
def returns_whether_acquired(kit: Kit) -> None:
    lock = kit.Lock()
    assert lock.acquire() is True
    for arguments in ((False,), (True, 0), (True, SHORT)):
        assert kit.of_another(lock.acquire, *arguments) is False
    lock.release()
    for arguments in ((False,), (True, LONG), (True,)):
        assert kit.of_another(lambda a=arguments: (lock.acquire(*a), lock.release())) == (True, None)


@sentence("Lock", "Lock acquires can now be interrupted by signals on POSIX.")
def signals_interrupt(kit: Kit) -> None:
    lock = kit.Lock()
    lock.acquire()
    kit.forks = True  # Ctrl-C comes to main threads
    other = kit.go(lambda: type(raises(KeyboardInterrupt, lock.acquire)).__name__)
    other.blocks()
    other.interrupt()
    assert other.result() == "KeyboardInterrupt"
    lock.release()
    assert _cycle(lock)


@sentence(
    "Lock",
    "Release a lock. This can be called from any thread, not only the thread which has acquired the lock.",
    "any may release",
)
def any_may_release(kit: Kit) -> None:
    lock = kit.Lock()
    lock.acquire()
    assert kit.of_another(lock.release) is None
    assert lock.acquire(False) is True
    lock.release()


@sentence(
    "Lock",
    "Once a process or thread has acquired a lock, subsequent attempts to acquire it from any process or "
    "thread will block until it is released.",
    "any may release",
)
def its_holder_waits_too(kit: Kit) -> None:
    lock = kit.Lock()

    def twice() -> bool:
        lock.acquire()
        assert lock.acquire(False) is False
        return bool(lock.acquire())

    other = kit.go(twice)
    other.blocks()
    lock.release()
    assert other.result() is True


@sentence(
    "Lock",
    "When the lock is locked, reset it to unlocked, and return. If any other threads are blocked waiting for "
    "the lock to become unlocked, allow exactly one of them to proceed.",
)
def release_lets_one_proceed(kit: Kit) -> None:
    lock, tally = kit.Lock(), kit.tally()

    def count() -> int:
        with lock:
            tally.add()
            return tally.value

    lock.acquire()
    others = [kit.go(count) for _ in range(4)]
    others[0].blocks()
    assert tally.value == 0
    lock.release()
    assert sorted(other.result() for other in others) == [1, 2, 3, 4]


@sentence("Lock", "There is no return value.")
def release_returns_nothing(kit: Kit) -> None:
    lock = kit.Lock()
    lock.acquire()
    assert lock.release() is None


@sentence("Lock", "Return True if the lock is acquired.", "locked()")
def locked(kit: Kit) -> None:
    lock = kit.Lock()
    assert lock.locked() is False
    with lock:
        assert lock.locked() is True
        assert kit.of_another(lock.locked) is True
    assert lock.locked() is False


@sentence(
    "Lock",
    "Invocations with a negative value for timeout are equivalent to a timeout of zero.",
    "negative is zero",
)
def negative_is_zero(kit: Kit) -> None:
    lock = kit.Lock()
    assert lock.acquire(True, -1) is True
    assert kit.of_another(lock.acquire, True, -1) is False
    lock.release()


@sentence(
    "Lock",
    "Invocations with a timeout value of None (the default) set the timeout period to infinite.",
    "none is for ever",
)
def none_is_infinite(kit: Kit) -> None:
    lock = kit.Lock()
    lock.acquire(True, None)
    other = kit.go(lambda: (lock.acquire(True, None), lock.release()))
    other.blocks()
    lock.release()
    assert other.result() == (True, None)


@sentence(
    "Lock",
    "The timeout argument has no practical implications if the block argument is set to False and is thus "
    "ignored.",
    "timeout ignored",
)
def timeout_is_ignored_without_blocking(kit: Kit) -> None:
    lock = kit.Lock()
    assert lock.acquire(False, LONG) is True
    assert kit.of_another(lock.acquire, False, LONG) is False
    lock.release()
