"""Barrier: who dies at it breaks it, and is named; nobody is left waiting."""

from __future__ import annotations

import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.puppet import START_METHODS, Puppet, Troupe, troupe
from support.wait import until

import pylocks

Broken = threading.BrokenBarrierError


def wait(barrier: pylocks.Barrier, timeout: float | None = None) -> int:
    return barrier.wait(timeout)


def rounds(barrier: pylocks.Barrier, count: int) -> list[int]:
    return [barrier.wait() for _ in range(count)]


def outcome(barrier: pylocks.Barrier) -> str:
    try:
        return str(barrier.wait())
    except Broken as error:
        return f"{type(error).__name__}: {error}"


@pytest.fixture
def barrier() -> pylocks.Barrier:
    return pylocks.Barrier(3)


@pytest.fixture
def cast(barrier: pylocks.Barrier) -> Iterator[Troupe]:
    with troupe("fork", barrier) as made:
        yield made


def waiting(cast: Troupe, count: int, task: Callable[..., Any] = outcome) -> list[Puppet]:
    puppets = cast.puppets(count)
    cast.queue(puppets, task)
    return puppets


@pytest.mark.parametrize("kind", START_METHODS)
def test_it_is_the_same_wherever_it_was_sent(kind: str, barrier: pylocks.Barrier) -> None:
    with troupe(kind, barrier) as made:
        puppets = made.puppets(2)
        for puppet in puppets:
            puppet.start(rounds, 5)
        found = [rounds(barrier, 5), *(puppet.finish() for puppet in puppets)]
    assert [sorted(places) for places in zip(*found, strict=True)] == [[0, 1, 2]] * 5


def test_places_are_in_order_of_arrival(cast: Troupe) -> None:
    for _ in range(3):
        first, second = waiting(cast, 2)
        assert cast.lock.wait() == 2
        assert (first.finish(), second.finish()) == ("0", "1")


def test_more_threads_than_parties_pass_in_groups() -> None:
    """Also while an action runs: those who come meanwhile are a group of their own."""
    acted = []
    barrier = pylocks.Barrier(2, lambda: acted.append(threading.get_native_id()))
    places: list[int] = []
    turns = iter(range(120))  # an even number: nobody is left without a partner
    threads = [
        threading.Thread(target=lambda: places.extend(barrier.wait() for _ in turns)) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(acted) == 60 and sorted(places) == [0] * 60 + [1] * 60


def test_many_parties_are_woken_in_several_stretches() -> None:
    barrier = pylocks.Barrier(100)
    places: list[int] = []
    threads = [threading.Thread(target=lambda: places.extend(rounds(barrier, 3))) for _ in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(places) == sorted(list(range(100)) * 3)


# ------------------------------------------------------------------------ death


def test_a_waiters_death_is_told_to_the_others(cast: Troupe) -> None:
    victim, other = waiting(cast, 2)
    victim.kill()
    said = other.finish()
    assert said.startswith("BarrierDeathError") and f"of process {victim.pid} died" in said
    with pytest.raises(pylocks.BarrierDeathError, match=str(victim.pid)):
        cast.lock.wait()
    assert cast.lock.broken and cast.lock.n_waiting == 0
    cast.lock.reset()
    (other,) = waiting(cast, 1)
    (third,) = waiting(cast, 1)
    assert cast.lock.wait() == 2
    assert {other.finish(), third.finish()} == {"0", "1"}


def test_the_last_to_come_does_not_pass_with_the_dead(cast: Troupe) -> None:
    victim, other = waiting(cast, 2)
    other.halt()  # nobody but the last can notice
    victim.kill()
    with pytest.raises(pylocks.BarrierDeathError, match=str(victim.pid)):
        cast.lock.wait()
    other.interrupt(signal.SIGCONT)
    assert other.finish().startswith("BarrierDeathError")


def die_at(barrier: pylocks.Barrier) -> None:
    dying = pickle.loads(pickle.dumps(barrier))
    dying._action = lambda: os.kill(os.getpid(), signal.SIGKILL)
    dying.wait()


def test_the_death_of_who_acts_breaks_it(cast: Troupe) -> None:
    first, second = waiting(cast, 2)
    (actor,) = cast.puppets(1)
    actor.start(die_at)
    actor.lose()
    for puppet in (first, second):
        assert f"of process {actor.pid} died" in puppet.finish()


def test_a_dead_one_who_has_passed_breaks_nothing(cast: Troupe) -> None:
    first, second = waiting(cast, 2)
    first.halt()
    assert cast.lock.wait() == 2
    first.kill()
    assert second.finish() == "1"
    assert not cast.lock.broken


# ---------------------------------------------------------------- breaking, acting


def test_ctrl_c_breaks_it(cast: Troupe) -> None:
    (other, sender) = cast.puppets(2)
    cast.queue([other], outcome)
    sender.start(interrupt_second, os.getpid())
    with pytest.raises(KeyboardInterrupt):
        cast.lock.wait()
    sender.finish()
    assert other.finish().startswith("BrokenBarrierError")
    assert cast.lock.broken


def interrupt_second(barrier: pylocks.Barrier, pid: int) -> None:
    until(lambda: barrier.n_waiting == 2, "both")
    os.kill(pid, signal.SIGINT)


@pytest.mark.parametrize("timeout", (0, -1, 0.01))
def test_a_timeout_breaks_it_for_all(cast: Troupe, timeout: float) -> None:
    (other,) = waiting(cast, 1)
    with pytest.raises(Broken):
        cast.lock.wait(timeout)
    assert other.finish().startswith("BrokenBarrierError")


def test_a_reset_or_abort_in_an_action_is_told_to_who_acts(cast: Troupe) -> None:
    for change in ("reset", "abort"):
        cast.lock.reset()
        others = waiting(cast, 2)
        mine = pickle.loads(pickle.dumps(cast.lock))
        mine._action = getattr(mine, change)
        with pytest.raises(Broken):
            mine.wait()
        assert [other.finish()[:18] for other in others] == ["BrokenBarrierError"] * 2
        assert mine.broken == (change == "abort")


def test_who_comes_during_an_action_waits_for_the_next_time(barrier: pylocks.Barrier) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def action() -> None:
        inside.set()
        go_on.wait()

    mine = pickle.loads(pickle.dumps(barrier))
    mine._action = action
    threads = [threading.Thread(target=barrier.wait) for _ in range(2)]
    threads.append(threading.Thread(target=mine.wait))
    for thread in threads[:2]:
        thread.start()
    until(lambda: barrier.n_waiting == 2, "two")
    threads[2].start()
    assert inside.wait(60)
    late = [threading.Thread(target=barrier.wait) for _ in range(3)]
    for thread in late:
        thread.start()
    until(lambda: barrier.n_waiting == 5, "the late ones")
    go_on.set()
    for thread in threads + late:
        thread.join()
    assert barrier.n_waiting == 0 and not barrier.broken


# -------------------------------------------------------------- names, bad input


def test_a_named_one_has_so_many_parties(name: str) -> None:
    domain = pylocks.Domain(name)
    made = pylocks.Barrier(2, name="phase", domain=domain)
    assert pylocks.Barrier(2, name="phase", domain=domain).index == made.index
    with pytest.raises(ValueError, match=r"barrier 'phase' of .* is for 2, not 3"):
        pylocks.Barrier(3, name="phase", domain=domain)
    assert "'phase': 0 of 2 waiting" in repr(made)
    made.abort()
    assert "'phase': broken" in repr(made)


BAD: dict[str, tuple[Callable[[], Any], type[Exception]]] = {
    "none": (lambda: pylocks.Barrier(0), ValueError),
    "negative": (lambda: pylocks.Barrier(-1), ValueError),
    "too many": (lambda: pylocks.Barrier(10**6), ValueError),
    "a float": (lambda: pylocks.Barrier(2.0), TypeError),  # type: ignore[arg-type]
    "action": (lambda: pylocks.Barrier(2, 5), TypeError),  # type: ignore[arg-type]
    "timeout": (lambda: pylocks.Barrier(2).wait("1"), TypeError),  # type: ignore[arg-type]
    "nan": (lambda: pylocks.Barrier(2).wait(float("nan")), ValueError),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input(what: str) -> None:
    call, error = BAD[what]
    with pytest.raises(error):
        call()


def test_a_closed_domain_is_told_of() -> None:
    domain = pylocks.Domain()
    barrier = pylocks.Barrier(2, domain=domain)
    domain.close()
    for use in (barrier.wait, barrier.reset, barrier.abort, lambda: barrier.broken, lambda: barrier.parties):
        with pytest.raises(pylocks.ClosedError):
            use()
    assert "closed" in repr(barrier)
