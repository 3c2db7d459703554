"""Semaphore and BoundedSemaphore."""

from __future__ import annotations

import time
from typing import Any

from support.sentences.kit import LONG, SHORT, Kit, raises, sentence


def _take_all(semaphore: Any) -> int:
    taken = 0
    while semaphore.acquire(False):
        taken += 1
    return taken


@sentence(
    "Semaphore",
    "A semaphore manages an internal counter which is decremented by each acquire() call and incremented by "
    "each release() call.",
)
def counts(kit: Kit) -> None:
    semaphore = kit.Semaphore(2)
    semaphore.acquire()
    semaphore.release()
    semaphore.release()
    assert _take_all(semaphore) == 3


@sentence(
    "Semaphore",
    "The counter can never go below zero; when acquire() finds that it is zero, it blocks, "
    "waiting until some "
    "other thread calls release().",
)
def zero_blocks(kit: Kit) -> None:
    semaphore = kit.Semaphore(0)
    other = kit.go(semaphore.acquire)
    other.blocks()
    semaphore.release()
    assert other.result() is True
    assert _take_all(semaphore) == 0


@sentence(
    "Semaphore", "The optional argument gives the initial value for the internal counter; it defaults to 1."
)
def the_initial_value(kit: Kit) -> None:
    assert _take_all(kit.Semaphore()) == 1
    for value in (0, 1, 5):
        assert _take_all(kit.Semaphore(value)) == value


@sentence("Semaphore", "If the value given is less than 0, ValueError is raised.", "negative value refused")
def a_negative_value_is_an_error(kit: Kit) -> None:
    raises(ValueError, lambda: kit.Semaphore(-1))


@sentence(
    "Semaphore",
    "If the internal counter is larger than zero on entry, decrement it by one and return True immediately.",
)
def acquire_takes_one(kit: Kit) -> None:
    semaphore = kit.Semaphore(3)
    assert semaphore.acquire() is True
    assert _take_all(semaphore) == 2


@sentence(
    "Semaphore",
    "If the internal counter is zero on entry, block until awoken by a call to release(). Once awoken (and "
    "the counter is greater than 0), decrement the counter by 1 and return True.",
)
def acquire_awakes(kit: Kit) -> None:
    semaphore = kit.Semaphore(0)
    other = kit.go(lambda: (semaphore.acquire(), _take_all(semaphore)))
    other.blocks()
    semaphore.release()
    assert other.result() == (True, 0)


@sentence("Semaphore", "Exactly one thread will be awoken by each call to release().")
def each_release_awakes_one(kit: Kit) -> None:
    semaphore = kit.Semaphore(0)
    others = [kit.go(semaphore.acquire) for _ in range(3)]
    for other in others:
        other.blocks()
    while others:
        semaphore.release()
        done = kit.one(others)
        assert done.result() is True
        others.remove(done)


@sentence(
    "Semaphore",
    "When invoked with blocking set to False, do not block. If a call without an argument "
    "would block, return "
    "False immediately; otherwise, do the same thing as when called without arguments, and return True.",
)
def not_blocking(kit: Kit) -> None:
    semaphore = kit.Semaphore(1)
    assert [semaphore.acquire(False), semaphore.acquire(False)] == [True, False]
    assert kit.of_another(semaphore.acquire, False) is False


@sentence(
    "Semaphore",
    "When invoked with a timeout other than None, it will block for at most timeout seconds. If acquire does "
    "not complete successfully in that interval, return False. Return True otherwise.",
)
def timeout(kit: Kit) -> None:
    semaphore = kit.Semaphore(0)
    began = time.monotonic()
    assert semaphore.acquire(True, SHORT) is False
    assert time.monotonic() - began >= SHORT
    other = kit.go(semaphore.acquire, True, LONG)
    other.blocks()
    semaphore.release()
    assert other.result() is True


@sentence(
    "Semaphore",
    "Release a semaphore, incrementing the internal counter by n. When it was zero on entry "
    "and other threads "
    "are waiting for it to become larger than zero again, wake up n of those threads.",
    "release(n)",
)
def release_many(kit: Kit) -> None:
    semaphore = kit.Semaphore(0)
    others = [kit.go(semaphore.acquire) for _ in range(3)]
    for other in others:
        other.blocks()
    semaphore.release(4)
    assert [other.result() for other in others] == [True] * 3
    assert _take_all(semaphore) == 1
    raises(ValueError, lambda: semaphore.release(0))


@sentence(
    "Semaphore",
    "The acquire() method will be called when the block is entered, and release() will be called when the "
    "block is exited.",
)
def is_a_context(kit: Kit) -> None:
    for semaphore in (kit.Semaphore(1), kit.BoundedSemaphore(1)):
        with semaphore:
            assert kit.of_another(semaphore.acquire, False) is False
        assert _take_all(semaphore) == 1


@sentence(
    "Semaphore",
    "Unlike a lock, it may be released by a thread that has not acquired it: the counter is raised.",
)
def any_may_release(kit: Kit) -> None:
    semaphore = kit.Semaphore(0)
    assert kit.of_another(semaphore.release) is None
    assert semaphore.acquire() is True


@sentence(
    "BoundedSemaphore",
    "A bounded semaphore checks to make sure its current value doesn't exceed its initial value. If it does, "
    "ValueError is raised.",
)
def the_bound(kit: Kit) -> None:
    semaphore = kit.BoundedSemaphore(2)
    raises(ValueError, semaphore.release)
    assert _take_all(semaphore) == 2
    semaphore.release()
    semaphore.release()
    raises(ValueError, semaphore.release)
    assert _take_all(semaphore) == 2


@sentence("BoundedSemaphore", "If not given, value defaults to 1.")
def the_default_bound(kit: Kit) -> None:
    semaphore = kit.BoundedSemaphore()
    raises(ValueError, semaphore.release)
    assert _take_all(semaphore) == 1
    semaphore.release()


@sentence(
    "BoundedSemaphore", "A counter whose value is 0 blocks acquire() until some other thread calls release()."
)
def bounded_blocks(kit: Kit) -> None:
    semaphore = kit.BoundedSemaphore(1)
    semaphore.acquire()
    other = kit.go(semaphore.acquire)
    other.blocks()
    semaphore.release()
    assert other.result() is True


@sentence(
    "BoundedSemaphore", "release(n): ValueError if the counter would exceed its initial value.", "release(n)"
)
def bounded_release_many(kit: Kit) -> None:
    semaphore = kit.BoundedSemaphore(3)
    assert _take_all(semaphore) == 3
    raises(ValueError, lambda: semaphore.release(4))
    assert _take_all(semaphore) == 0
    semaphore.release(3)
    assert _take_all(semaphore) == 3
