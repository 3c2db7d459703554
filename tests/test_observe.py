"""A look at a domain finds who holds and who waits, and nobody notices it."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest
from conftest import POLICIES, segment_path
from support import run
from support.child import in_child
from support.tenants import Tenant, descriptors, queue, seen
from support.wait import PATIENCE_S, until

import pylocks
from pylocks import errors, observe
from pylocks.observe import Looks, Snapshot, snapshot
from pylocks.observe.people import short_command


def test_a_domain_that_nobody_has_used(name: str) -> None:
    with pylocks.Domain(name, vcpus=7, locks=9) as domain:
        found = snapshot(name)
        assert (found.label, found.name, found.path) == (name, name, str(segment_path(name)))
        assert (found.vcpu_limit, found.lock_limit, found.locks, found.vcpus) == (7, 9, (), ())
        assert (found.protocol, found.slow_path) == (domain.protocol, domain.slow_path)
        assert (found.creator_pid, found.owner, found.mode) == (os.getpid(), os.geteuid(), 0o600)
        assert found.uid == domain.uid.hex() and found.size == segment_path(name).stat().st_size
        assert 0 <= found.age_s < 3600 and not found.unlinked and not found.abandoned
    assert snapshot(name).abandoned


@pytest.mark.parametrize("policy", POLICIES)
def test_the_holder_and_the_queue_in_order(policy: str, name: str) -> None:
    with pylocks.Domain(name) as domain:
        lock = pylocks.TicketLock("orders", domain=domain, policy=policy)
        lock.acquire()
        with queue(lock, 4) as tids:
            found = seen(lock)
            lock.release()
    assert found.owner is not None and found.owner.vcpu.tid == threading.get_native_id()
    assert found.owner.vcpu.pid == os.getpid() and found.owner.ticket == found.head == 0
    assert found.policy == policy and found.busy and found.queued == 4
    if policy == "fifo":
        assert [waiter.ticket for waiter in found.waiters] == [1, 2, 3, 4]
        assert [waiter.vcpu.tid for waiter in found.waiters] == tids
        waits = [waiter.waited_ns for waiter in found.waiters]
        assert waits == sorted(waits, key=lambda ns: -(ns or 0)) and None not in waits
        assert found.longest_wait_ns == waits[0]
    else:
        assert {waiter.vcpu.tid for waiter in found.waiters} == set(tids)


def test_processes_have_names_and_threads_a_state(name: str) -> None:
    with Tenant(name) as tenant:
        tenant.do("acquire", "orders")
        os.kill(tenant.pid, signal.SIGSTOP)
        until(lambda: snapshot(name).vcpus[0].state == "stopped", "its being stopped")
        (vcpu,) = snapshot(name).vcpus
        os.kill(tenant.pid, signal.SIGCONT)
    assert (vcpu.pid, vcpu.tid, vcpu.alive, vcpu.foreign) == (tenant.pid, tenant.pid, True, False)
    assert vcpu.process is not None and vcpu.process.startswith("python")
    assert vcpu.command is not None and name in vcpu.command
    assert vcpu.cpu in range(os.cpu_count() or 1) and vcpu.holds == (0,)


def test_the_dead_are_told_from_the_living(name: str) -> None:
    with Tenant(name) as tenant, pylocks.Domain(name) as domain:
        tenant.do("acquire", "orders")
        tenant.kill()
        until(lambda: not snapshot(name).vcpus[0].alive, "the kernel's news of its death")
        found = snapshot(name)
        lock = found.lock("orders")
        assert lock is not None and lock.owner is not None and not lock.owner_died
        assert (lock.owner.vcpu.alive, lock.owner.vcpu.process, lock.owner.vcpu.state) == (False, None, None)
        assert not found.abandoned
        domain.recover()
        recovered = snapshot(name).lock("orders")
        assert recovered is not None and recovered.owner is None and recovered.owner_died
    assert snapshot(name).abandoned


def test_what_a_signal_handler_waits_for_comes_last(name: str) -> None:
    with Tenant(name) as tenant:
        for which in ("outer", "inner"):
            tenant.do("acquire", which)
        with pylocks.Domain(name) as domain:
            outer, inner = domain.lock("outer"), domain.lock("inner")
            waiting = in_order(domain, outer, inner)
        assert waiting == [(outer.index, 1), (inner.index, 1)]


def in_order(domain: pylocks.Domain, outer: pylocks.TicketLock, inner: pylocks.TicketLock) -> list[object]:
    """What a child waits for whose handler waits for `inner` while it waits for `outer`."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGUSR1, lambda *_: inner.acquire())
        outer.acquire()
        os._exit(0)
    try:
        until(lambda: seen(outer).waiters, "the child in the queue")
        os.kill(pid, signal.SIGUSR1)
        until(lambda: seen(inner).waiters, "its handler in the other")
        (vcpu,) = (v for v in snapshot(domain).vcpus if v.pid == pid)
        assert seen(outer).waiters[0].waited_ns is None and seen(inner).waiters[0].waited_ns is not None
        return list(vcpu.waits_for)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_tickets_that_were_given_up_are_counted() -> None:
    with pylocks.Domain() as domain:
        lock = domain.lock("orders")
        with lock:
            assert in_child(lambda: lock.acquire(timeout=0.01)) is False
            found = seen(lock)
            assert (found.tombstones, found.queued, found.waiters) == (1, 1, ())


def test_unnamed_locks_go_by_their_index() -> None:
    with pylocks.Domain() as domain:
        first, second = pylocks.TicketLock(domain=domain), pylocks.TicketLock(domain=domain)
        with second:
            assert [lock.label for lock in snapshot(domain).locks] == ["#0", "#1"]
            assert [lock.busy for lock in snapshot(domain).locks] == [False, True]
            assert seen(second).index == second.index != first.index


def test_of_an_array_what_was_used_is_listed(name: str) -> None:
    locks = pylocks.LockArray(100_000, name)
    try:
        memory = segment_path(name).stat().st_blocks
        with locks[7], locks[99_999]:
            found = snapshot(name)
            assert found.array and [lock.index for lock in found.locks if lock.busy] == [7, 99_999]
        assert [lock.head for lock in snapshot(name).locks] == [1, 1]
        assert segment_path(name).stat().st_blocks < memory + 64
    finally:
        locks.close()


@pytest.mark.parametrize("packed", (False, True))
def test_of_many_unnamed_locks_those_in_use_are_listed(packed: bool, name: str) -> None:
    count = observe.snap.MOST_UNNAMED + 50_000
    locks = pylocks.LockArray(count, name, packed=packed)
    try:
        for i in range(count):
            locks.acquire(i)
            if i != count - 5:
                locks.release(i)
        found = snapshot(name)
        assert any(lock.index == count - 5 and lock.owner is not None for lock in found.locks)
        assert found.omitted > 0 and len(found.locks) + found.omitted == count
        locks.release(count - 5)
    finally:
        locks.close()


# ------------------------------------------------------------ other ways to it


def anonymous(domain: pylocks.Domain) -> observe.Place | None:
    """Where it is found, among those of other programs, which may be of other versions, or ending."""
    for place in observe.anonymous_places():
        try:
            if snapshot(place).uid == domain.uid.hex():
                return place
        except errors.DomainError:
            pass
    return None


def test_by_name_path_object_and_uid() -> None:
    with pylocks.Domain() as domain, domain.lock("orders"):
        uid = domain.uid.hex()
        place = anonymous(domain)
        assert place is not None
        assert place.pids == (os.getpid(),) and place.name is None
        for which in (domain, f"@{uid[:12]}", place.path, Path(place.path), place):
            found = snapshot(which)
            assert (found.uid, found.label, found.unlinked) == (uid, f"@{uid[:8]}", True)
            assert not found.abandoned and found.locks[0].owner is not None
    with pytest.raises(errors.UnknownDomainError, match="no living process"):
        snapshot(f"@{uid[:12]}")


@pytest.mark.parametrize("which", ("@", "@12", "@xyzw", "@../..", "", "a b", "-x", "x" * 101, "nul\0"))
def test_what_cannot_be_a_name(which: str) -> None:
    with pytest.raises(ValueError, match="name"):
        snapshot(which)


def test_a_name_that_is_removed_leaves_a_domain_without_one(name: str) -> None:
    with pylocks.Domain(name) as domain:
        domain.unlink()
        assert snapshot(domain).unlinked
        assert anonymous(domain) is not None
        with pytest.raises(errors.UnknownDomainError, match=f"no domain '{name}'"):
            snapshot(name)


def test_a_closed_domain_is_not_looked_at(name: str) -> None:
    domain = pylocks.Domain(name)
    domain.close()
    with pytest.raises(errors.ClosedError):
        snapshot(domain)


# -------------------------------------------------------------- nobody notices


def test_a_look_leaves_no_trace(name: str) -> None:
    """No vCPU, no flock, no memory, no descriptor, no byte changed."""
    with pylocks.Domain(name, locks=1 << 20) as domain:
        domain.lock("orders")
    path = segment_path(name)
    before, status, open_before = path.read_bytes(), path.stat(), descriptors()
    for _ in range(3):
        assert snapshot(name).vcpus == ()
    now = path.stat()
    assert path.read_bytes() == before and descriptors() == open_before
    assert (now.st_blocks, now.st_mtime_ns) == (status.st_blocks, status.st_mtime_ns)
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # nobody is attached


def test_a_file_that_can_only_be_read_is_enough(name: str) -> None:
    with pylocks.Domain(name):
        pass
    segment_path(name).chmod(0o400)
    assert snapshot(name).mode == 0o400


def test_the_observer_needs_no_slot(name: str) -> None:
    """A domain whose slots are all taken can be looked at; by a process that has never had one."""
    with pylocks.Domain(name, vcpus=1) as domain, domain.lock("orders"):
        script = f"from pylocks import observe; print(len(observe.snapshot({name!r}).vcpus))"
        assert run.python("-c", script).check() == "1\n"


def work(locks: list[pylocks.TicketLock]) -> None:
    while True:
        for lock in locks:
            with lock:
                pass


def test_a_moving_lock_says_so_and_is_never_wrong() -> None:
    """Every look at locks that go round is true in itself, whatever moves meanwhile."""
    with pylocks.Domain() as domain:
        locks = [pylocks.TicketLock(f"l{i}", domain=domain, policy=POLICIES[i % 2]) for i in range(4)]
        pids = []
        for _ in range(3):
            pids.append(os.fork())
            if pids[-1] == 0:
                work(locks)
        try:
            until(lambda: len(snapshot(domain).vcpus) == 3, "all at work")
            changing = 0
            deadline = time.monotonic() + PATIENCE_S
            while changing < 20 and time.monotonic() < deadline:
                found = snapshot(domain)
                changing += sum(lock.changing for lock in found.locks)
                for lock in found.locks:
                    check(lock)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
    assert changing >= 20


def check(lock: observe.Lock) -> None:
    """What holds of three threads and a lock, at any moment."""
    assert lock.head <= lock.tail
    parties = [waiter.vcpu.index for waiter in lock.waiters]
    parties += [lock.owner.vcpu.index] if lock.owner is not None else []
    assert len(set(parties)) == len(parties) <= 3
    tickets = [waiter.ticket for waiter in lock.waiters if waiter.ticket is not None]
    assert tickets == sorted(tickets) and all(lock.head <= ticket < lock.tail for ticket in tickets)


# --------------------------------------------------------------- several looks


def test_rates_and_holding_times_come_with_the_second_look() -> None:
    looks = Looks()
    with pylocks.Domain() as domain:
        lock, other = domain.lock("orders"), domain.lock("idle")
        with lock:
            first = looks.add(snapshot(domain))
            assert first.locks[0].rate is None and first.locks[0].owner is not None
            assert first.locks[0].owner.held_at_least_ns is None
            time.sleep(0.01)
            second = looks.add(snapshot(domain))
            assert second.locks[0].owner is not None and second.locks[1].owner is None
            held = second.locks[0].owner.held_at_least_ns
            assert held == second.taken_ns - first.taken_ns
        for _ in range(10):
            with lock:
                pass
        with lock:  # another time
            third = looks.add(snapshot(domain))
            assert third.locks[0].owner is not None and third.locks[0].owner.held_at_least_ns is None
            elapsed = (third.taken_ns - second.taken_ns) / 1e9
            assert third.locks[0].rate == pytest.approx(11 / elapsed)
        assert other.name == third.locks[1].name and third.locks[1].rate == 0


def test_a_new_domain_under_an_old_name_is_another_one(name: str) -> None:
    looks = Looks()
    for _ in range(2):
        with pylocks.Domain(name) as domain:
            with domain.lock("orders"):
                found = looks.add(snapshot(name))
            domain.unlink()
        assert found.locks[0].rate is None


# ----------------------------------------------------------------- as it is told


def test_all_that_is_found_can_be_written_as_json() -> None:
    with pylocks.Domain() as domain:
        lock = domain.lock("orders")
        lock.acquire()
        with queue(lock, 2) as tids:
            found = snapshot(domain)
            lock.release()
    told = json.loads(json.dumps(observe.plain(found)))
    assert {*told} == {field.name for field in dataclasses.fields(Snapshot)}
    (one,) = told["locks"]
    assert one["owner"]["pid"] == os.getpid() and [w["tid"] for w in one["waiters"]] == tids
    assert [vcpu["waits_for"] for vcpu in told["vcpus"]] == [[], [[0, 1]], [[0, 2]]]


@pytest.mark.parametrize(
    ("command", "short"),
    (
        ("/usr/bin/python3 /srv/shop/till.py --all", "till.py"),
        ("python3 -m shop.worker 3", "shop.worker"),
        ("python3 -X dev -W error -u till.py", "till.py"),
        ("python3 -c import_this", "python3 -c"),
        ("python3", "python3"),
        ("", "python3"),
    ),
)
def test_python_programs_go_by_what_they_run(command: str, short: str) -> None:
    assert short_command("python3", command) == short
    assert short_command("nginx", "nginx: worker") == "nginx"
    assert short_command(None, None) is None


def test_the_service_is_seen(name: str) -> None:
    with pylocks.Domain(name) as domain:
        assert snapshot(name).service is None
        with pylocks.Hypervisor(domain) as hypervisor:
            found = snapshot(name)
            assert [vcpu.pid for vcpu in found.vcpus if vcpu.index == found.service] == [hypervisor.pid]
        assert snapshot(name).service is None
