"""Event: set, clear, wait; death and signals."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from typing import Any

import pytest
from support.syncs import forked, thread, waiting

import pylocks


def test_it_is_set_from_set_to_clear() -> None:
    e = pylocks.Event()
    assert e.is_set() is False and e.wait(0) is False and e.wait(timeout=0.001) is False
    e.set()
    e.set()
    assert e.is_set() is True and e.wait() is True and e.wait(0) is True
    e.clear()
    assert not e.is_set()


def test_a_timeout_is_not_early() -> None:
    e = pylocks.Event()
    began = time.monotonic()
    assert not e.wait(0.05)
    assert time.monotonic() - began >= 0.05 and e.waiters == 0


@pytest.mark.parametrize(("timeout", "error"), [("x", TypeError), (1e30, OverflowError)])
def test_wrong_timeouts(timeout: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        pylocks.Event().wait(timeout)
    with pytest.raises(TypeError):
        pylocks.Event().wait(1, 2)  # type: ignore[call-arg]


def test_all_who_wait_go_on() -> None:
    """More than are woken in one stretch with the guard; in other processes, too."""
    e, went = pylocks.Event(), []
    threads = [threading.Thread(target=lambda: went.append(e.wait())) for _ in range(70)]
    with forked(e.wait, e.wait) as children:
        for one in threads:
            one.start()
        waiting(e, 72)
        e.set()
        assert [child.wait() for child in children] == [0, 0]
        for one in threads:
            one.join(60)
    assert went == [True] * 70 and e.waiters == 0


def test_who_waited_at_set_goes_on_although_it_is_cleared_at_once() -> None:
    e, went = pylocks.Event(), []
    with thread(lambda: went.append(e.wait(60))):
        waiting(e, 1)
        e.set()
        e.clear()
    assert went == [True] and not e.is_set()


def test_a_waiter_that_is_killed_keeps_nobody_up() -> None:
    e = pylocks.Event()
    with forked(e.wait, e.wait, e.wait) as children:
        waiting(e, 3)
        children[1].kill()
        e.set()
        assert children[0].wait() == children[2].wait() == 0


def test_a_signal_handler_may_set_it() -> None:
    e = pylocks.Event()

    def interrupt() -> None:
        waiting(e, 1)
        os.kill(os.getpid(), signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, lambda *_: e.set())
    try:
        with thread(interrupt):
            assert e.wait(60)
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_ctrl_c_ends_the_wait() -> None:
    e = pylocks.Event()

    def interrupt() -> None:
        waiting(e, 1)
        os.kill(os.getpid(), signal.SIGINT)

    with thread(interrupt), pytest.raises(KeyboardInterrupt):
        e.wait()
    assert e.waiters == 0


def test_names_and_pickles(name: str) -> None:
    with pylocks.Domain(name) as domain:
        e = pylocks.Event(name="ready", domain=domain)
        pickle.loads(pickle.dumps(e)).set()
        assert pylocks.Event(name="ready", domain=domain).is_set()
        with pytest.raises(pylocks.WrongKindError, match="is an Event"):
            domain.lock("ready")
        with pytest.raises(TypeError):
            pylocks.Event("ready")  # type: ignore[misc]


def test_when_all_have_died_it_is_not_set(name: str) -> None:
    with forked(lambda: pylocks.Event(name="ready", domain=pylocks.Domain(name)).set()) as (child,):
        assert child.wait() == 0
    with pylocks.Domain(name) as domain:
        assert not pylocks.Event(name="ready", domain=domain).is_set()


def test_a_closed_domain() -> None:
    domain = pylocks.Domain()
    e = pylocks.Event(domain=domain)
    domain.close()
    for use in (e.set, e.clear, e.is_set, e.wait):
        with pytest.raises(pylocks.ClosedError):
            use()


def test_a_domain_is_not_closed_while_somebody_waits() -> None:
    domain = pylocks.Domain()
    e = pylocks.Event(domain=domain)
    with thread(e.wait):
        waiting(e, 1)
        with pytest.raises(pylocks.DomainBusyError):
            domain.close()
        e.set()
    domain.close()


def test_it_can_not_be_entered() -> None:
    from pylocks import _lock

    with pytest.raises(TypeError, match="can't be entered"):
        _lock.SyncWithin(pylocks.Event(), 1)


def test_repr() -> None:
    e = pylocks.Event()
    assert repr(e).endswith(": unset, 0 waiting>")
    e.set()
    assert repr(e).endswith(": set, 0 waiting>")
