"""What happens to a domain with a hypervisor: python -m support.served SCENARIO.

A process is patched once, so each of these has one of its own, with PYLOCKS_OPS from the test.  Whoever waits
here has a watchdog that is longer than any test: nobody but a kick wakes it.
"""

from __future__ import annotations

import mmap
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import pylocks
from pylocks._core import ffi, lib
from support.run import alive
from support.serving import asked_for, cell_of, held, kicks_by, stopped, waiting, words
from support.wait import until

# ------------------------------------------------------------------ hosted


def the_service_kicks() -> None:
    """Several processes take turns, and nobody but the service wakes anybody."""
    domain = pylocks.Domain()
    lock = held(domain)
    with pylocks.Hypervisor(domain) as hypervisor, ExitStack() as waiters:
        queue = [waiters.enter_context(waiting(lock)) for _ in range(3)]
        lock.release()
        assert all(one.entered() for one in queue)
        assert hypervisor.pid is not None
        until(lambda: kicks_by(domain, hypervisor.pid or 0) > 0, "its kicks")


def a_request_waits(then: Callable[[pylocks.Hypervisor, int], None]) -> None:
    """[H1] A kick is asked for while the service is stopped; the waiter has it `then`."""
    domain = pylocks.Domain()
    lock = held(domain)
    hypervisor = pylocks.Hypervisor(domain)
    with hypervisor, waiting(lock) as waiter:
        with stopped(hypervisor) as pid:
            lock.release()
            assert asked_for(domain) == lock.index + 1
            assert not waiter.entered(0)
            then(hypervisor, pid)
        assert waiter.entered()
        with pylocks.Hypervisor(domain, wait=True):
            until(lambda: asked_for(domain) == 0, "the request to be taken down")


def until_it_goes_on() -> None:
    """A service that is stopped has it when it goes on."""
    a_request_waits(lambda hypervisor, pid: None)


def until_it_ends() -> None:
    """A service that is told to end has it first."""
    a_request_waits(lambda hypervisor, pid: os.kill(pid, signal.SIGTERM))


def until_it_is_succeeded() -> None:
    """A service that dies leaves it to the next."""

    def succeed(hypervisor: pylocks.Hypervisor, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not hypervisor.running, "its end")
        hypervisor.start()
        assert hypervisor.pid not in (None, pid)

    a_request_waits(succeed)


@contextmanager
def idle_service(domain: pylocks.Domain) -> Iterator[list[bool]]:
    """A thread that is the service and serves nothing; then it stops, or, if the list says so, just ends."""
    began, end, orderly = threading.Event(), threading.Event(), [True]

    def idle() -> None:
        assert lib.plk_service_begin(domain._segment) == 0
        began.set()
        end.wait()
        if orderly[0]:
            lib.plk_service_end(domain._segment, ffi.new("struct plk_service *"))

    thread = threading.Thread(target=idle)
    thread.start()
    began.wait()
    try:
        yield orderly
    finally:
        end.set()
        thread.join()


def at_its_last_look() -> None:
    """[H1] Who stops says so, and then looks at all pages."""
    domain = pylocks.Domain()
    lock = held(domain)
    with waiting(lock) as waiter:
        with idle_service(domain):
            lock.release()
            assert asked_for(domain) == lock.index + 1 and not waiter.entered(0)
        assert waiter.entered()
        assert asked_for(domain) == 0


def at_the_next_ones_first_step() -> None:
    """[H1] Who takes over has all bells rung."""
    domain = pylocks.Domain()
    lock = held(domain)
    with waiting(lock) as waiter:
        with idle_service(domain) as orderly:
            lock.release()
            words(domain)[1].doorbell = 0  # it had taken the bell, and not yet looked at the page
            orderly[0] = False
        until(lambda: lib.plk_service_index(domain._segment) == -1, "the end of the thread, after join()")
        assert not waiter.entered(0)

        def step() -> None:
            assert lib.plk_service_begin(domain._segment) == 0
            lib.plk_service_step(domain._segment, ffi.new("struct plk_service *"), 0)

        thread = threading.Thread(target=step)
        thread.start()
        thread.join()
        assert waiter.entered()


def a_stopped_service_costs_one_kick() -> None:
    """Whose request has not been taken wakes the next by itself."""
    domain = pylocks.Domain()
    first, second = held(domain), held(domain)
    with pylocks.Hypervisor(domain) as hypervisor, waiting(first) as one, waiting(second) as other:
        with stopped(hypervisor):
            first.release()
            second.release()
            assert other.entered()
            assert not one.entered(0)
        assert one.entered()


def the_slot_is_anothers_by_then() -> None:
    """[H1] A request outlives its thread: who has the slot next leaves it, and kicks by itself."""
    domain = pylocks.Domain()
    locks = [pylocks.TicketLock(domain=domain) for _ in range(2)]

    def hold(lock: pylocks.TicketLock, taken: threading.Event, go: threading.Event, seen: list[int]) -> None:
        with lock:
            me = threading.get_native_id()
            seen.append(next(vcpu.index for vcpu in domain.vcpus() if vcpu.tid == me))
            taken.set()
            go.wait()
        seen.append(asked_for(domain))

    def holder(lock: pylocks.TicketLock) -> tuple[threading.Thread, threading.Event, list[int]]:
        taken, go, seen = threading.Event(), threading.Event(), list[int]()
        thread = threading.Thread(target=hold, args=(lock, taken, go, seen))
        thread.start()
        taken.wait()
        return thread, go, seen

    one, go, first = holder(locks[0])
    with pylocks.Hypervisor(domain) as hypervisor, waiting(locks[0]) as waiter:
        with stopped(hypervisor):
            go.set()
            one.join()
            until(lambda: all(vcpu.index != first[0] for vcpu in domain.vcpus()), "its slot to be free")
            other, go, second = holder(locks[1])
            with waiting(locks[1]) as next_waiter:
                go.set()
                assert next_waiter.entered() and not waiter.entered(0)
            other.join()
            wanted = locks[0].index + 1
            assert first[0] == second[0] and first[1] == second[1] == wanted, (first, second)
        assert waiter.entered()


def without_a_service() -> None:
    """Killed, and nobody follows: unlockers kick by themselves."""
    domain = pylocks.Domain()
    lock = held(domain)
    hypervisor = pylocks.Hypervisor(domain)
    with hypervisor, waiting(lock) as waiter:
        assert hypervisor.pid is not None
        os.kill(hypervisor.pid, signal.SIGKILL)
        until(lambda: hypervisor.pid is None and not hypervisor.running, "its end")
        lock.release()
        assert waiter.entered()


def killed_again_and_again() -> None:
    """Eight processes fight while one service after the other is killed; each has the next behind it."""
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain)
    tally = mmap.mmap(-1, 8)
    rounds, crew = 100, []
    for _ in range(8):
        pid = os.fork()
        if pid == 0:
            for _ in range(rounds):
                with lock:
                    before = int.from_bytes(tally[:8], "little")
                    time.sleep(0.0001)
                    tally[:8] = (before + 1).to_bytes(8, "little")
            os._exit(0)
        crew.append(pid)
    services = [pylocks.Hypervisor(domain, wait=True) for _ in range(2)]
    for service in services:
        service.start()
    for turn in range(4):
        pid = services[0].pid
        assert pid is not None
        before = int.from_bytes(tally[:8], "little")
        os.kill(pid, signal.SIGKILL)
        until(lambda: services[0].pid not in (None, pid), f"successor {turn}")  # noqa: B023
        until(lambda: not all(service.running for service in services), "its end")
        victim = next(service for service in services if not service.running)
        victim.start()
        until(
            lambda: (
                int.from_bytes(tally[:8], "little") not in (before, before + 1)  # noqa: B023
                or int.from_bytes(tally[:8], "little") == 8 * rounds
            ),
            "them to go on",
        )
    for one in crew:
        assert os.waitpid(one, 0)[1] == 0
    for service in services:
        service.stop()
    assert int.from_bytes(tally[:8], "little") == 8 * rounds


# --------------------------------------------------------- whatever the slow path


def a_process_dies() -> None:
    """The next in line has the lock as soon as the service hears of it."""
    warnings.simplefilter("ignore", pylocks.OwnerDiedWarning)
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain)
    with pylocks.Hypervisor(domain):
        taken, writable = os.pipe()
        holder = os.fork()
        if holder == 0:
            lock.acquire()
            os.write(writable, b"x")
            time.sleep(1000)
        os.read(taken, 1)
        with waiting(lock) as waiter:
            os.kill(holder, signal.SIGKILL)
            assert waiter.entered()
        os.waitpid(holder, 0)
        assert lock.acquire() and lock.owner_died
        lock.mark_consistent()
        lock.release()


def a_thread_dies() -> None:
    """Its process lives on: no pidfd tells, a look does."""
    warnings.simplefilter("ignore", pylocks.OwnerDiedWarning)
    domain = pylocks.Domain()
    lock = pylocks.TicketLock(domain=domain)
    taken, end = threading.Event(), threading.Event()

    def hold() -> None:
        lock.acquire()
        taken.set()
        end.wait()

    holder = threading.Thread(target=hold)
    holder.start()
    taken.wait()
    with pylocks.Hypervisor(domain), waiting(lock) as waiter:
        end.set()
        holder.join()
        assert waiter.entered()


def a_kick_is_lost() -> None:
    """Head has moved, and who moved it says nothing."""
    domain = pylocks.Domain()
    lock = held(domain)
    with pylocks.Hypervisor(domain), waiting(lock) as waiter:
        cell_of(lock).head += 1
        assert waiter.entered()


def newcomers_are_watched() -> None:
    """Who comes after the service, and dies at once, too."""
    domain = pylocks.Domain()
    locks = [pylocks.TicketLock(domain=domain) for _ in range(5)]
    with pylocks.Hypervisor(domain):
        for lock in locks:
            pid = os.fork()
            if pid == 0:
                lock.acquire()
                os.kill(os.getpid(), signal.SIGKILL)
            os.waitpid(pid, 0)
        until(lambda: not any(lock.locked() for lock in locks), "them to be free")
        until(lambda: all(v.alive for v in domain.vcpus()), "their slots to be free")


# ------------------------------------------------------------------ its own life


def one_at_a_time() -> None:
    """Another is refused, or waits, and takes over."""
    domain = pylocks.Domain()
    first, second = pylocks.Hypervisor(domain), pylocks.Hypervisor(domain, wait=True)
    with first, second:
        pid = first.pid
        assert pid is not None and f"process {pid}" in repr(first) and second.running
        for refused in (pylocks.Hypervisor(domain).start, pylocks.Hypervisor(domain).serve):
            try:
                refused()
            except pylocks.HypervisorError as error:
                assert f"process {pid}" in str(error) and "wait=True" in str(error), error
            else:
                raise AssertionError("two hypervisors")
        os.kill(pid, signal.SIGKILL)
        until(lambda: second.pid not in (None, pid), "the second")
        assert not first.running and second.running
    assert second.pid is None


def a_fork_lets_go() -> None:
    """It is its starter's, not that of a process forked since."""
    domain = pylocks.Domain()
    hypervisor = pylocks.Hypervisor(domain)
    hypervisor.start()
    pid = os.fork()
    if pid == 0:
        done = not hypervisor.running
        hypervisor.stop()
        os._exit(0 if done else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert hypervisor.running and hypervisor.pid is not None
    hypervisor.stop()
    hypervisor.stop()
    hypervisor.start()
    assert hypervisor.running  # and ends with this process


def it_ends_with_its_starter() -> None:
    """However that ends."""
    domain = pylocks.Domain()
    said, writable = os.pipe()
    starter = os.fork()
    if starter == 0:
        hypervisor = pylocks.Hypervisor(domain)
        hypervisor.start()
        os.write(writable, b"x")
        time.sleep(1000)
    assert os.read(said, 1) == b"x"
    served = pylocks.Hypervisor(domain).pid
    assert served is not None and alive(served)
    os.kill(starter, signal.SIGKILL)
    os.waitpid(starter, 0)
    until(lambda: not alive(served), "its end")
    assert pylocks.Hypervisor(domain).pid is None


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "This process .* is multi-threaded, use of .*fork", DeprecationWarning)
    globals()[sys.argv[1]]()
