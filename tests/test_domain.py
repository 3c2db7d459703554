"""Domain: one object a domain, and what it shows."""

from __future__ import annotations

import dataclasses
import gc
import os
import pickle
import re
import threading
from typing import Any

import pytest
from conftest import segment_path
from support import run, tasks
from support.puppet import troupe

import pylocks

# ------------------------------------------------------------------ what it shows


def test_what_a_domain_says_of_itself(name: str) -> None:
    named, anonymous = pylocks.Domain(name), pylocks.Domain()
    assert (named.name, anonymous.name) == (name, None)
    assert named.uid != anonymous.uid and len(named.uid) == 16
    for domain in (named, anonymous):
        assert domain.protocol == "enlightened"
        assert domain.slow_path in ("futex", "yield")
        assert not domain.closed
        state = f"{domain.protocol}, {domain.slow_path}"
        shown = f"<pylocks.Domain {domain.name or 'anonymous'} {domain.uid.hex()[:8]}: "
        assert repr(domain) == f"{shown}{state}>"
        domain.close()
        assert domain.closed
        assert repr(domain) == f"{shown}closed>"


def test_locks_are_listed_with_their_names() -> None:
    names = ["orders", "ärger", "日本", "x" * 100, "ü" * 50, " ", "new\nline", "a/b", "nul\0byte", "😀"]
    with pylocks.Domain() as domain:
        assert domain.locks() == ()
        made = {name: domain.lock(name).index for name in names}
        pylocks.TicketLock(domain=domain)
        assert {lock.name: lock.index for lock in domain.locks()} == made
        assert len(set(made.values())) == len(names)
        assert {name: domain.lock(name, create=False).index for name in names} == made
        held = domain.locks()[1]
        with held:
            assert domain.lock(names[1]).locked()
        for listed in domain.locks():
            assert pickle.loads(pickle.dumps(listed)).name == listed.name


@pytest.mark.parametrize("bad", ("x" * 101, "ü" * 51, ""))
def test_names_that_no_lock_can_have(bad: str) -> None:
    with pylocks.Domain() as domain:
        for create in (True, False):
            with pytest.raises(ValueError, match=f"1 to 100 bytes of UTF-8, not {len(bad.encode())}"):
                domain.lock(bad, create)
        assert domain.locks() == ()


def test_an_unknown_lock_is_not_made_without_create() -> None:
    with pylocks.Domain() as domain:
        with pytest.raises(pylocks.UnknownLockError, match=r"'orders'.*it has: none"):
            domain.lock("orders", create=False)
        domain.lock("bills")
        with pytest.raises(LookupError, match=r"'orders'.*it has: 'bills'"):
            pylocks.TicketLock("orders", domain=domain, create=False)
        assert [lock.name for lock in domain.locks()] == ["bills"]


def test_many_makers_of_one_name_get_one_lock() -> None:
    with pylocks.Domain() as domain:
        lock = pylocks.TicketLock(domain=domain)
        with troupe("fork", lock) as made:
            puppets = [*made.puppets(3), made.guest("threads")]
            lock.acquire()
            for puppet in puppets:
                puppet.start(tasks.make_locks, [f"lock {i}" for i in range(50)])
            lock.release()
            found = [puppet.finish() for puppet in puppets]
        assert found == [found[0]] * 4
        assert len(set(found[0])) == len(domain.locks()) == 50


def test_vcpus_are_the_threads_that_use_the_domain() -> None:
    with pylocks.Domain(vcpus=8) as domain:
        assert domain.vcpus() == ()
        lock = pylocks.TicketLock(domain=domain)
        with troupe("fork", lock) as made:
            child, thread = made.puppets(1)[0], made.guest("threads")
            assert domain.vcpus() == ()  # a handle alone is no use
            with lock:
                pass
            for puppet in (child, thread):
                puppet.call(tasks.acquire)
                puppet.call(tasks.release)
            shown = [(v.pid, v.tid, v.alive, v.held, v.waiting_for) for v in domain.vcpus()]
            assert shown == [
                (os.getpid(), threading.get_native_id(), True, 0, None),
                (child.pid, child.tid, True, 0, None),
                (os.getpid(), thread.tid, True, 0, None),
            ]
            child.kill()
            assert [v.alive for v in domain.vcpus()] == [True, False, True]


COUNTING = """
import os, threading, pylocks
domain = pylocks.Domain()
lock = pylocks.TicketLock(domain=domain)
assert set(vars(domain.stats()).values()) == {0}
with lock: pass
assert set(vars(domain.stats()).values()) == {0}
lock.acquire()
entered = threading.Thread(target=lambda: (lock.acquire(), lock.release()))
entered.start()
while not any(v.parked for v in domain.vcpus()): pass
left = threading.Thread(target=lambda: [lock.acquire(timeout=0.001) for _ in range(3)])
left.start(); left.join()
lock.release(); entered.join()
print(domain.stats())
with pylocks.Domain() as other:
    print(set(vars(other.stats()).values()))
"""


def test_statistics_count_where_they_were_asked_for() -> None:
    settings = run.settings(PYLOCKS_OPS="lock_event=counters,lock_spinning=futex")
    shown, other = run.python("-c", COUNTING, environment=settings).check().splitlines()
    assert other == "{0}"
    stats = {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", shown)}
    assert set(stats) == {field.name for field in dataclasses.fields(pylocks.Stats)}
    assert stats["waits"] >= 2
    assert stats["parks"] >= 1
    assert stats["hypercalls"] >= stats["parks"]
    assert (stats["abandons"], stats["resumes"], stats["passes"]) == (3, 2, 1)
    assert stats["kicks"] + stats["empty_kicks"] >= 1


def test_statistics_are_frozen_and_off_by_default() -> None:
    with pylocks.Domain() as domain:
        lock = pylocks.TicketLock(domain=domain)
        with troupe("threads", lock) as made, lock:
            assert made.puppets(1)[0].call(tasks.acquire, True, 0.001) is False
        stats = domain.stats()
        assert set(dataclasses.asdict(stats).values()) == {0}
        with pytest.raises(dataclasses.FrozenInstanceError):
            stats.waits = 1  # type: ignore[misc]


# ------------------------------------------------------------------ one object


def test_there_is_one_object_for_a_domain(name: str) -> None:
    domain = pylocks.Domain(name)
    assert pylocks.Domain(name) is domain
    assert pylocks.Domain(name, create=False, vcpus=7, locks=9) is domain
    assert (domain.vcpu_limit, domain.lock_limit) == (4096, 65536)
    assert domain.lock("orders").domain is domain
    assert pickle.loads(pickle.dumps(domain)) is domain
    assert pylocks.Domain() is not pylocks.Domain()
    first = domain.uid
    del domain
    gc.collect()
    assert pylocks.Domain(name).uid == first


@pytest.mark.parametrize(
    "arguments",
    [
        {"vcpus": 0},
        {"vcpus": 65536},
        {"vcpus": -1},
        {"locks": 0},
        {"locks": (1 << 26) + 1},
        {"protocol": "paravirtual"},
        {"protocol": ""},
        {"mode": 0o400},
        {"mode": 0o777},
        {"mode": 0o1600},
        {"mode": 0},
    ],
    ids=str,
)
def test_a_domain_that_can_not_be(arguments: dict[str, Any], name: str) -> None:
    ((argument, value),) = arguments.items()
    shown = f"{value:#o}" if argument == "mode" else str(value)
    with pytest.raises(ValueError, match=argument) as caught:
        pylocks.Domain(name, **arguments)
    assert shown in str(caught.value)
    assert not segment_path(name).exists()


@pytest.mark.parametrize("bad", ("", "a/b", "../x", ".", ".x", "-x", "x" * 101, "ä", "a b", "a\0b", 5, b"x"))
def test_names_that_no_domain_can_have(bad: Any) -> None:
    with pytest.raises(ValueError, match="name is 1 to 100"):
        pylocks.Domain(bad)


@pytest.mark.parametrize("good", ("x", "7", "A.b-c_d", "x" * 60))
def test_names_that_a_domain_can_have(good: str, name: str) -> None:
    full = f"{name}.{good}"
    with pylocks.Domain(full) as domain:
        assert segment_path(full).exists()
        domain.unlink()
    assert not segment_path(full).exists()


@pytest.mark.parametrize("umask", (0o022, 0o077, 0o777, 0))
def test_the_mode_does_not_depend_on_the_umask(umask: int, name: str) -> None:
    before = os.umask(umask)
    try:
        with pylocks.Domain(name, mode=0o640), pylocks.Domain(name, mode=0o640):
            assert segment_path(name).stat().st_mode & 0o7777 == 0o640
    finally:
        os.umask(before)
