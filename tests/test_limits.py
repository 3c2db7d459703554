"""Where a table is full: slots, cells, names, domains, tombstones."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import segment_path
from support import header, run, tasks
from support.child import in_child
from support.puppet import KINDS, troupe
from support.wait import until

import pylocks

# ------------------------------------------------------------------ vCPUs


@pytest.mark.parametrize("kind", KINDS)
def test_more_threads_than_vcpus(kind: str) -> None:
    with pylocks.Domain(vcpus=2) as domain:
        lock = pylocks.TicketLock(domain=domain)
        with lock:
            pass
        with troupe(kind, lock) as made:
            second, third = made.puppets(2)
            assert second.call(tasks.acquire) is True
            for arguments in ((), (False,), (True, 0.1)):
                with pytest.raises(pylocks.DomainFullError, match=r"all 2 vCPU slots.*vcpus=N"):
                    third.call(tasks.acquire, *arguments)
            with pytest.raises(pylocks.NotOwnerError):
                third.call(tasks.release)
            assert third.call(tasks.look, "locked") is not None
            second.call(tasks.release)
            assert lock.acquire(False) is True
            lock.release()
            if kind == "threads":
                second.end()
            else:
                second.kill()
            until(lambda: _can(third), "the slot is free again")
            third.call(tasks.release)


def _can(puppet: Any) -> bool:
    try:
        return bool(puppet.call(tasks.acquire))
    except pylocks.DomainFullError:
        return False


def test_one_vcpu() -> None:
    with pylocks.Domain(vcpus=1) as domain:
        lock = pylocks.TicketLock(domain=domain)
        with lock:
            assert lock.owner is not None and lock.owner.tid == threading.get_native_id()
            with pytest.raises(pylocks.AlreadyOwnerError):
                lock.acquire()
        assert in_child(lambda: _outcome(lock.acquire)) == "DomainFullError"


def _outcome(function: Callable[[], Any]) -> str:
    try:
        return repr(function())
    except Exception as error:
        return type(error).__name__


def test_as_many_vcpus_as_there_can_be() -> None:
    with pylocks.Domain(vcpus=65535) as domain:
        with pylocks.TicketLock(domain=domain):
            assert len(domain.vcpus()) == 1
        assert os.fstat(domain.token()[3]).st_blocks * 512 < 1 << 20


# ------------------------------------------------------------------ cells and names


def test_more_locks_than_cells() -> None:
    with pylocks.Domain(locks=3) as domain:
        locks = [pylocks.TicketLock(domain=domain), domain.lock("orders"), pylocks.TicketLock(domain=domain)]
        for name in (None, "bills"):
            with pytest.raises(pylocks.DomainFullError, match=r"it has 3.*Domain\(\.\.\., locks=N\)"):
                pylocks.TicketLock(name, domain=domain)
        assert domain.lock("orders").index == locks[1].index
        del locks[2]
        assert domain.lock("bills").index == 2
        assert [lock.name for lock in domain.locks()] == ["orders", "bills"]


def test_more_names_than_a_domain_can_have() -> None:
    with pylocks.Domain(locks=5000) as domain:
        for i in range(4096):
            domain.lock(f"name {i}")
        with pytest.raises(pylocks.DomainFullError, match="4096 names"):
            domain.lock("one more")
        assert len(domain.locks()) == 4096
        assert domain.lock("name 4095", create=False).index == 4095
        assert pylocks.TicketLock(domain=domain).index == 4096


@pytest.mark.parametrize("locks", (1, 1 << 26))
def test_as_few_and_as_many_locks_as_there_can_be(locks: int) -> None:
    with pylocks.Domain(locks=locks) as domain, domain.lock("orders"):
        assert os.fstat(domain.token()[3]).st_blocks * 512 < 1 << 20
    array = pylocks.LockArray(locks)
    with array[-1]:
        assert array[locks - 1].locked()
    array.close()


# ------------------------------------------------------------------ domains

MANY_DOMAINS = """
import pylocks
domains = []
try:
    while True: domains.append(pylocks.Domain(vcpus=1, locks=1))
except pylocks.DomainFullError as error:
    print(len(domains), error)
assert all(domain.lock("orders").acquire() for domain in domains[:-1])
domains.pop().close()
domains.append(pylocks.LockArray(3))
with domains.pop()[2]: print("made")
with pylocks.TicketLock(): print("again")
"""


def test_more_domains_than_a_process_can_have() -> None:
    full, last, again = run.python("-c", MANY_DOMAINS).check().splitlines()
    count, _, message = full.partition(" ")
    assert int(count) == 256
    assert "256 domains" in message and "close some" in message
    assert (last, again) == ("made", "again")


@pytest.mark.parametrize("how", ("close", "drop", "both"))
def test_domains_one_after_the_other(how: str) -> None:
    """Nothing of a domain remains in a process that is done with it."""
    for _ in range(20):
        pylocks.Domain()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(600):
        domain = pylocks.Domain(vcpus=4, locks=4)
        with domain.lock("orders"):
            pass
        if how != "drop":
            domain.close()
        if how != "close":
            del domain
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before + 1
    mapped = Path("/proc/self/maps").read_text().count("pylocks")
    assert mapped < 100


def test_threads_one_after_the_other_leave_no_memory_behind() -> None:
    script = (
        "import psutil, threading, pylocks\n"
        "lock = pylocks.TicketLock()\n"
        "def work():\n"
        "    with lock: pass\n"
        "def some(count):\n"
        "    for _ in range(count):\n"
        "        thread = threading.Thread(target=work); thread.start(); thread.join()\n"
        "    return psutil.Process().memory_info().rss\n"
        "some(200)\n"
        "print(-some(1) + some(2000), lock.ticket)\n"
    )
    grown, ticket = run.python("-c", script).check().split()
    assert int(grown) < 4 << 20, "a table of seats has 8 kB"
    assert ticket == "2201"


# ------------------------------------------------------------------ tombstones


def test_more_abandoned_tickets_than_there_is_room_for(name: str) -> None:
    """Timeouts are kept all the same, and nobody is left out."""
    array = pylocks.LockArray(8192 + 200, name)
    for i in range(len(array)):
        array.acquire(i)
    with troupe("threads", array) as made:
        leaver = made.puppets(1)[0]
        assert leaver.call(tasks.leave_all) == 0
        room = header.read(segment_path(name)).geometry.tombs
        assert room // 2 < header.read(segment_path(name)).tombs_live <= room
        for i in (0, len(array) - 1):
            leaver.start(tasks.acquire_at, i, 60.0)
            array.release(i)
            assert leaver.finish() is True
            leaver.call(tasks.release_at, i)
        for i in range(1, len(array) - 1):
            array.release(i)
    assert not any(lock.locked() for lock in array)
    assert header.read(segment_path(name)).tombs_live == 0
    for i in range(0, len(array), 500):
        assert array.acquire(i, False)
        array.release(i)
