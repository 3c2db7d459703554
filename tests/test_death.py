"""Death on a large scale and under odd circumstances: arrays, slots, recycled pids, pid namespaces.

How participants die, and in which state, is part of the contract (support/contract_death.py).
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support import run, tasks
from support.child import in_child
from support.puppet import troupe
from support.wait import until

import pylocks
from pylocks._core import lib

LIVES = int(os.environ.get("TESTS_LIVES", "2000"))
"""Short-lived processes that go through one domain, one after the other, some at a time."""


@contextmanager
def forked(function: Callable[[], object]) -> Iterator[int]:
    """A child that runs the function and then sleeps; killed at the end of the block."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os.write(writable, b"x")
            time.sleep(1000)
        finally:
            os._exit(1)
    os.close(writable)
    try:
        assert os.read(readable, 1) == b"x", "the child ended early"
        yield pid
    finally:
        os.close(readable)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(pid, 0)


def kill(pid: int) -> None:
    """SIGKILL; gone when this returns."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def slots_used(domain: pylocks.Domain) -> int:
    """Slots of the vCPU table that have ever been used."""
    return int(lib.plk_vcpus_used(domain._segment))


# ------------------------------------------------------------------ many locks of one


@pytest.mark.parametrize("packed", (False, True), ids=("padded", "packed"))
def test_all_locks_of_the_dead_in_a_large_array(packed: bool) -> None:
    """1,500 of a million, all over it; those of the living and the free ones are not touched."""
    array = pylocks.LockArray(1_000_000, packed=packed)
    chance = random.Random(11)
    held = chance.sample(range(len(array)), 1500)
    alive, free = held[:100], [chance.randrange(len(array)) for _ in range(200)]
    free = [i for i in free if i not in set(held)]

    def hold(which: list[int]) -> Callable[[], None]:
        return lambda: [array.acquire(i) for i in which] and None

    for i in free:
        array.acquire(i)
        array.release(i)
    with forked(hold(alive)), forked(hold(held[100:])) as victim:
        kill(victim)
        assert array.domain.recover() == 1
        for i in held[100:]:
            assert (array[i].owner_died, array[i].locked(), array[i].ticket) == (True, False, 1)
        for i in alive:
            assert (array[i].owner_died, array[i].locked(), array[i].ticket) == (False, True, 0)
        for i in free:
            assert (array[i].owner_died, array[i].locked()) == (False, False)
        for i in held[100:]:
            with array[i].repair():
                pass
    array.domain.recover()
    array.close()


def test_one_look_recovers_all_locks_of_the_dead() -> None:
    """Who waits for one of them finds all: the others are free without anybody's wait."""
    array = pylocks.LockArray(1_000_000)
    held = list(range(0, 1_000_000, 997))
    with forked(lambda: [array.acquire(i) for i in held]) as victim:
        kill(victim)
        with array[held[500]].repair(300):
            pass
        for i in held:
            cell = array.domain.cell(i)
            assert (cell.owned, cell.head, cell.tail) == (False, *[2 if i == held[500] else 1] * 2)
            assert array[i].owner_died is (i != held[500])
            with array[i].repair():
                pass
    array.close()


def test_many_locks_with_waiters_each() -> None:
    """The dead held locks that others wait for, and waited for locks that others hold."""
    array = pylocks.LockArray(64)
    with troupe("fork", array) as made:
        heirs = made.puppets(6)
        for i in range(6, 12):
            array.acquire(i)

        def hold_and_wait() -> None:
            for i in range(6):
                array.acquire(i)
            for i in range(6, 12):
                assert array.acquire(i, timeout=0.001) is False

        with forked(hold_and_wait) as victim:
            for number, heir in enumerate(heirs):
                heir.start(tasks.acquire_silently_at, number)
            until(lambda: all(array[i].waiters == 1 for i in range(6)), "all wait")
            kill(victim)
            assert [heir.finish() for heir in heirs] == [True] * 6
        for i in range(6, 12):
            array.release(i)
            assert not array[i].locked()
            assert not array[i].owner_died


# ------------------------------------------------------------------ slots


def _live_and_die(array: pylocks.LockArray, number: int) -> None:
    """A short life, its end drawn by lot; in a child, which this ends."""
    chance = random.Random(number)
    how = chance.choice(("exit", "exit", "idle", "holding", "abandoned", "waiting"))
    mine = chance.randrange(1, len(array))
    with suppress(pylocks.OwnerDiedError):
        array.acquire(mine, timeout=30)
        array.release(mine)
    if how == "holding":
        with array[mine].repair():
            os.kill(os.getpid(), signal.SIGKILL)
    elif how == "abandoned":
        with suppress(pylocks.OwnerDiedError):
            array.acquire(0, timeout=1e-4)
    elif how == "waiting":
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # kills
        signal.setitimer(signal.ITIMER_REAL, 0.002)
        with suppress(pylocks.OwnerDiedError):
            array.acquire(0)
    elif how == "idle":
        os.kill(os.getpid(), signal.SIGKILL)
    os._exit(0)


def test_short_lived_processes_leave_no_slot_behind() -> None:
    """They end in order, are killed idle, holding, waiting, or with an abandoned ticket."""
    array = pylocks.LockArray(16, on_owner_death="raise")
    array.acquire(0)  # what the waiting ones wait for
    at_once, running = 4, set[int]()
    began = time.monotonic()
    for number in range(LIVES):
        if number % 300 == 299:  # each that died waiting is remembered until its turn has come
            array.release(0)
            array[0].repair(300).__enter__()
        pid = os.fork()
        if pid == 0:
            try:
                _live_and_die(array, number)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        running.add(pid)
        while len(running) >= at_once or (number == LIVES - 1 and running):
            pid, status = os.wait()
            running.discard(pid)
            assert os.waitstatus_to_exitcode(status) in (0, -signal.SIGKILL, -signal.SIGALRM), number
    took = time.monotonic() - began
    array.domain.recover()
    assert [v.pid for v in array.domain.vcpus()] == [os.getpid()]
    assert array[0].locked() and array.domain.cell(0).owned
    array.release(0)
    for lock in array:
        with lock.repair(300):
            pass
        assert (lock.locked(), lock.waiters, lock.owner_died) == (False, 0, False)
    print(f"{LIVES} lives in {took:.1f} s through {slots_used(array.domain)} slots")
    assert slots_used(array.domain) <= at_once + 2
    array.close()


def test_a_full_table_comes_free_when_those_in_it_die() -> None:
    """Whether they were idle, held a lock, or had abandoned a ticket."""
    with pylocks.Domain(vcpus=3) as domain:
        locks = [domain.lock(f"lock {i}") for i in range(4)]

        def be(state: str) -> None:
            locks[0].acquire()
            if state != "holding":
                locks[0].release()
            if state == "abandoning":
                assert locks[3].acquire(timeout=0.001) is False

        with locks[3]:
            for state in ("idle", "holding", "abandoning"):
                with forked(lambda: locks[1].acquire()), forked(lambda state=state: be(state)) as victim:  # type: ignore[misc]
                    with pytest.raises(pylocks.DomainFullError, match="all 3 vCPU slots"):
                        in_child(locks[2].acquire)
                    kill(victim)
                    assert in_child(lambda: locks[2].acquire(timeout=300)) is True
                with locks[0].repair(300), locks[1].repair(300), locks[2].repair(300):
                    pass
        assert slots_used(domain) == 3
        assert not any(lock.locked() for lock in locks)


def test_a_slot_is_not_used_again_before_its_locks_are_free() -> None:
    """The newcomer is not the owner of what the dead held under the slot's number."""
    with pylocks.Domain(vcpus=2) as domain:
        lock, other = domain.lock("orders"), domain.lock("bills")
        with other:
            pass
        for _ in range(5):
            with forked(lambda: lock.repair().__enter__()) as victim:
                kill(victim)

            def newcomer() -> tuple[bool, bool]:
                other.acquire()
                with pytest.raises(pylocks.NotOwnerError):
                    lock.release()
                return lock.locked(), lock.owner_died

            assert in_child(newcomer) == (False, True)
            domain.recover()
            with lock.repair(), other.repair():
                pass


# ------------------------------------------------------------------ recycled pids


def _fork_with_pid(wanted: int, function: Callable[[], object]) -> Any:
    """A child with that pid that runs the function; skips the test where nobody may choose pids."""
    path = Path("/proc/sys/kernel/ns_last_pid")
    for _ in range(200):
        try:
            path.write_text(str(wanted - 1))
        except OSError as error:
            pytest.skip(f"pids can't be chosen here: {error}")
        readable, writable = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                if os.getpid() == wanted:
                    function()
                    os.write(writable, b"x")
                    time.sleep(1000)
            finally:
                os._exit(1)
        os.close(writable)
        said = os.read(readable, 1)
        os.close(readable)
        if said:
            return pid
        os.waitpid(pid, 0)
    pytest.skip(f"pid {wanted} was always somebody else's")


@pytest.mark.parametrize("uses", (False, True), ids=("a-stranger", "a-participant"))
def test_a_process_with_the_pid_of_the_dead_is_not_taken_for_it(uses: bool) -> None:
    """The life word tells, not the pid; the thread's number is the same, too."""
    with pylocks.Domain() as domain:
        lock, other = domain.lock("orders"), domain.lock("bills")
        with forked(lock.acquire) as victim:
            kill(victim)
        double = _fork_with_pid(victim, other.acquire if uses else lambda: None)
        try:
            owner = lock.owner
            if not uses:  # else whoever registers has recovered already
                assert owner is not None
                assert (owner.pid, owner.alive) == (victim, False)
            with lock.repair(300):
                assert lock.owner_died
            held = other.owner
            assert (held is not None and (held.pid, held.alive) == (victim, True)) is uses
            assert other.locked() is uses
            assert other.acquire(timeout=0.02) is not uses
            if not uses:
                other.release()
        finally:
            kill(double)
        with other.repair(300):
            assert other.owner_died is uses


# ------------------------------------------------------------------ pid namespaces

INSIDE = """
import os, sys, threading, pylocks
lock = pylocks.Domain(sys.argv[1]).lock("orders")
print(os.getpid(), threading.get_native_id(), flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""


class Elsewhere:
    """A Python process in a pid namespace of its own, its first process or a later one."""

    def __init__(self, name: str) -> None:
        unshare = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        if os.geteuid() != 0:
            unshare += ["--user", "--map-current-user"]
        self._process = subprocess.Popen(
            [*unshare, sys.executable, "-c", INSIDE, name],
            env=run.settings(), text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None
        first = self._process.stdout.readline().split()
        if not first:
            _, said = self._process.communicate()
            pytest.skip(f"no pid namespace of one's own is allowed here: {said.strip()}")
        self.pid, self.tid = map(int, first)

    def __enter__(self) -> Elsewhere:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()  # and, as asked for, its child
        self._process.communicate()

    def send(self, expression: str) -> None:
        assert self._process.stdin is not None
        print(expression, file=self._process.stdin, flush=True)

    def hear(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self, expression: str) -> str:
        self.send(expression)
        return self.hear()


@pytest.fixture
def shared(name: str) -> Iterator[pylocks.TicketLock]:
    with pylocks.Domain(name) as domain:
        yield domain.lock("orders")


def test_participants_in_another_pid_namespace_die(shared: pylocks.TicketLock, name: str) -> None:
    """Their pids mean others here, or nobody: a killed holder, or waiter, is found all the same."""
    with troupe("fork", shared) as made:
        heir = made.puppets(1)[0]
        with Elsewhere(name) as victim:
            assert victim.pid == 1
            assert victim.ask("lock.acquire()") == "True"
            owner = shared.owner
            assert owner is not None and (owner.pid, owner.tid, owner.alive) == (1, 1, True)
            assert shared.acquire(timeout=0.05) is False
            heir.start(tasks.succeed, None)
            until(lambda: shared.waiters >= 1, "the heir waits")
        assert heir.finish()[0] is True
        with Elsewhere(name) as waiter:
            shared.acquire()
            waiter.send("lock.acquire()")
            until(lambda: shared.waiters >= 1, "it waits")
            heir.start(tasks.succeed, None)
            until(lambda: shared.waiters >= 2, "the heir waits behind")
        shared.release()
        assert heir.finish()[0] is False


def test_two_namespaces_with_the_same_pids(shared: pylocks.TicketLock, name: str) -> None:
    """Two first processes, each with the number 1: one's death is not the other's."""
    with Elsewhere(name) as one, Elsewhere(name) as other:
        assert one.ask("lock.acquire()") == "True"
        assert other.ask("lock.acquire(timeout=0.05)") == "False"
        assert "NotOwnerError" in other.ask("type(pylocks.errors.lock_error(1, lock.domain, 0)).__name__")
        other.send("lock.repair(300).__enter__() and (lock.owner_died, lock.owner.alive)")
        until(lambda: shared.waiters >= 1, "the other waits")
        one.__exit__()
        assert other.hear() == "(True, True)"
        assert [v.alive for v in shared.domain.vcpus() if v.held] == [True]
        assert other.ask("(lock.mark_consistent(), lock.release())") == "(None, None)"
    with shared:
        assert not shared.owner_died
