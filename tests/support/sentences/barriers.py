"""Barrier."""

from __future__ import annotations

import threading
import time
from typing import Any

from support.sentences.kit import LONG, SHORT, Kit, Party, raises, sentence
from support.wait import until


def _waiting(kit: Kit, barrier: Any, count: int, timeout: float | None = None) -> list[Party]:
    """So many who wait at it."""
    others = [kit.go(barrier.wait, timeout) for _ in range(count)]
    until(lambda: barrier.n_waiting == count, f"{count} at the barrier")
    return others


def _broken(parties: list[Party]) -> None:
    for party in parties:
        raises(threading.BrokenBarrierError, party.result)


@sentence(
    "Barrier",
    "Each of the threads tries to pass the barrier by calling the wait() method and will block until all of "
    "the threads have made their wait() calls. At this point, the threads are released simultaneously.",
)
def all_wait_for_all(kit: Kit) -> None:
    barrier = kit.Barrier(4)
    others = _waiting(kit, barrier, 3)
    for other in others:
        other.blocks()
    mine = barrier.wait()
    assert sorted([mine, *(other.result() for other in others)]) == [0, 1, 2, 3]


@sentence("Barrier", "The barrier can be reused any number of times for the same number of threads.")
def is_reused(kit: Kit) -> None:
    barrier, rounds = kit.Barrier(3), 20
    others = [kit.go(lambda: [barrier.wait() for _ in range(rounds)]) for _ in range(2)]
    mine = [barrier.wait() for _ in range(rounds)]
    all_of_them = zip(mine, *(other.result() for other in others), strict=True)
    assert all(sorted(found) == [0, 1, 2] for found in all_of_them)
    assert kit.Barrier(1).wait() == 0


@sentence(
    "Barrier",
    "An action, when provided, is a callable to be called by one of the threads when they are released.",
)
def the_action_is_called_once(kit: Kit) -> None:
    tally = kit.tally()
    barrier = kit.Barrier(3, tally.add)
    for count in (1, 2):
        others = [kit.go(lambda: (barrier.wait(), tally.value)[1]) for _ in range(2)]
        barrier.wait()
        # having been called before anybody is released
        assert [tally.value, *(other.result() for other in others)] == [count] * 3


@sentence("Barrier", "timeout is the default timeout value if none is specified for the wait() method.")
def the_default_timeout(kit: Kit) -> None:
    barrier = kit.Barrier(2, timeout=SHORT)
    began = time.monotonic()
    raises(threading.BrokenBarrierError, barrier.wait)
    assert time.monotonic() - began >= SHORT


@sentence(
    "Barrier",
    "If a timeout is provided, it is used in preference to any that was supplied to the class constructor.",
)
def a_timeout_given(kit: Kit) -> None:
    barrier = kit.Barrier(2, timeout=LONG)
    raises(threading.BrokenBarrierError, lambda: barrier.wait(SHORT))
    barrier = kit.Barrier(2, timeout=SHORT)
    other = _waiting(kit, barrier, 1, LONG)[0]
    other.blocks()
    time.sleep(2 * SHORT)
    barrier.wait()
    assert other.result() in (0, 1)


@sentence(
    "Barrier", "The return value is an integer in the range 0 to parties - 1, different for each thread."
)
def the_return_values(kit: Kit) -> None:
    barrier = kit.Barrier(5)
    others = [kit.go(barrier.wait) for _ in range(4)]
    assert {barrier.wait(), *(other.result() for other in others)} == set(range(5))


@sentence(
    "Barrier",
    "If an action was provided to the constructor, one of the threads will have called it prior to being "
    "released. Should this call raise an error, the barrier is put into the broken state.",
)
def a_failing_action_breaks_it(kit: Kit) -> None:
    barrier = kit.Barrier(2, lambda: 1 // 0)
    others = _waiting(kit, barrier, 1)
    raises(ZeroDivisionError, barrier.wait)
    _broken(others)
    assert barrier.broken is True


@sentence("Barrier", "If the call times out, the barrier is put into the broken state.")
def a_timeout_breaks_it(kit: Kit) -> None:
    barrier = kit.Barrier(3)
    others = _waiting(kit, barrier, 1)
    raises(threading.BrokenBarrierError, lambda: barrier.wait(SHORT))
    _broken(others)
    assert barrier.broken is True
    assert kit.of_another(lambda: barrier.broken) is True


@sentence(
    "Barrier",
    "This method may raise a BrokenBarrierError exception if the barrier is broken or reset while a thread "
    "is waiting.",
)
def waiters_hear_of_it(kit: Kit) -> None:
    for break_it in ("abort", "reset"):
        barrier = kit.Barrier(3)
        others = _waiting(kit, barrier, 2)
        kit.of_another(getattr(barrier, break_it))
        _broken(others)


@sentence(
    "Barrier",
    "Return the barrier to the default, empty state. Any threads waiting on it will receive the "
    "BrokenBarrierError exception.",
)
def reset(kit: Kit) -> None:
    barrier = kit.Barrier(2)
    barrier.reset()
    assert barrier.broken is False
    others = _waiting(kit, barrier, 1)
    barrier.reset()
    _broken(others)
    until(lambda: barrier.n_waiting == 0, "them to have left")
    assert barrier.broken is False
    barrier.abort()
    barrier.reset()
    assert barrier.broken is False
    others = _waiting(kit, barrier, 1)
    assert {barrier.wait(), others[0].result()} == {0, 1}


@sentence(
    "Barrier",
    "Put the barrier into a broken state. This causes any active or future calls to wait() to fail with the "
    "BrokenBarrierError.",
)
def abort(kit: Kit) -> None:
    barrier = kit.Barrier(3)
    others = _waiting(kit, barrier, 2)
    barrier.abort()
    _broken(others)
    assert barrier.broken is True
    raises(threading.BrokenBarrierError, barrier.wait)
    _broken([kit.go(barrier.wait)])


@sentence("Barrier", "parties: the number of threads required to pass the barrier.")
def parties(kit: Kit) -> None:
    for count in (1, 2, 7):
        assert kit.Barrier(count).parties == count


@sentence("Barrier", "n_waiting: the number of threads currently waiting in the barrier.")
def n_waiting(kit: Kit) -> None:
    barrier = kit.Barrier(3)
    assert barrier.n_waiting == 0
    others = _waiting(kit, barrier, 1)
    others += [kit.go(barrier.wait)]
    until(lambda: barrier.n_waiting == 2, "the second")
    barrier.wait()
    for other in others:
        other.result()
    assert barrier.n_waiting == 0


@sentence("Barrier", "broken: a boolean that is True if the barrier is in the broken state.")
def broken(kit: Kit) -> None:
    barrier = kit.Barrier(2)
    assert barrier.broken is False
    barrier.abort()
    assert barrier.broken is True


@sentence(
    "Barrier",
    "BrokenBarrierError, a subclass of RuntimeError, is raised when the Barrier object is reset or broken.",
)
def the_exception(kit: Kit) -> None:
    barrier = kit.Barrier(2)
    barrier.abort()
    error = raises(RuntimeError, barrier.wait)
    assert isinstance(error, threading.BrokenBarrierError)
