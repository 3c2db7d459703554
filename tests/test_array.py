"""LockArray: many locks in one segment, memory only where touched."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Callable, Iterator
from operator import index
from typing import Any

import pytest
from support import run, tasks
from support.puppet import KINDS, troupe

import pylocks

MANY = 1_000_000
PACKED = pytest.mark.parametrize("packed", (False, True), ids=("padded", "packed"))


@pytest.fixture
def array() -> Iterator[pylocks.LockArray]:
    made = pylocks.LockArray(10)
    yield made
    if not made.domain.closed:
        made.close()


def _file(array: pylocks.LockArray) -> os.stat_result:
    return os.fstat(array.domain.token()[3])


# ------------------------------------------------------------------ memory


@PACKED
def test_a_million_locks_cost_memory_only_where_touched(packed: bool) -> None:
    array = pylocks.LockArray(MANY, packed=packed)
    assert len(array) == MANY
    made = _file(array)
    assert made.st_size >= MANY * (32 if packed else 64)
    assert made.st_blocks * 512 < 1 << 20
    for i in range(0, MANY, MANY // 10):
        array.acquire(i)
        array.release(i)
    for i in range(1000):  # neighbours share pages
        array.acquire(i)
        array.release(i)
    touched = (_file(array).st_blocks - made.st_blocks) * 512
    assert touched <= (10 + 1 + 1000 * 64 // 4096 + 1) * 4096


@PACKED
def test_a_process_with_a_million_locks_stays_small(packed: bool) -> None:
    done = run.python(
        "-c",
        "import psutil, pylocks\n"
        "pylocks.LockArray(1)\n"
        "before = psutil.Process().memory_info().rss\n"
        f"array = pylocks.LockArray({MANY}, packed={packed})\n"
        "with array[7], array[999_999]: pass\n"
        "print(psutil.Process().memory_info().rss - before)",
    )
    assert int(done.check()) < 4 << 20


def test_packing_halves_the_segment() -> None:
    padded, packed = pylocks.LockArray(64_000), pylocks.LockArray(64_000, packed=True)
    assert (padded.packed, packed.packed) == (False, True)
    assert _file(padded).st_size - _file(packed).st_size == 64_000 * 32


# ------------------------------------------------------------------ indices


@pytest.mark.parametrize("i", (0, 3, 9, -1, -10, True))
def test_an_element_is_a_lock(array: pylocks.LockArray, i: int) -> None:
    lock = array[i]
    assert isinstance(lock, pylocks.TicketLock)
    assert (lock.index, lock.name, lock.domain) == (i % 10, None, array.domain)
    assert array.acquire(i) is True
    assert lock.locked()
    assert [other.index for other in array if other.locked()] == [i % 10]
    array.release(i)
    with lock:
        assert array.acquire(i, False) is False
        assert array.acquire(i % 10, timeout=0) is False
    assert not lock.locked()


@pytest.mark.parametrize("use", ("__getitem__", "acquire", "release"))
@pytest.mark.parametrize("i", (10, -11, 2**31, 2**32, 2**63, -(2**63), 2**70))
def test_no_element_beyond_the_ends(array: pylocks.LockArray, use: str, i: int) -> None:
    with pytest.raises(IndexError):
        getattr(array, use)(i)


@pytest.mark.parametrize("use", ("__getitem__", "acquire", "release"))
@pytest.mark.parametrize("i", (1.0, "1", None, slice(2), b"1"))
def test_an_index_is_an_integer(array: pylocks.LockArray, use: str, i: Any) -> None:
    with pytest.raises(TypeError):
        getattr(array, use)(i)


def test_whatever_counts_as_an_integer_is_an_index(array: pylocks.LockArray) -> None:
    class Row:
        def __index__(self) -> int:
            return 4

    assert index(Row()) == 4
    with array[Row()]:
        assert array.acquire(Row(), False) is False
    array.acquire(Row())
    array.release(Row())


def test_an_array_is_iterated_in_order(array: pylocks.LockArray) -> None:
    assert [lock.index for lock in array] == list(range(10))


@pytest.mark.parametrize("n", (0, -1, 2**26 + 1, 2**40))
def test_no_array_of_that_length(n: int) -> None:
    with pytest.raises(ValueError, match=str(n)):
        pylocks.LockArray(n)


@pytest.mark.parametrize(
    "call",
    (
        lambda array: array.acquire(),
        lambda array: array.acquire(1, True, 1, 1),
        lambda array: array.acquire(1, blokcing=1),
        lambda array: array.acquire(index=1),
        lambda array: array.release(),
    ),
)
def test_bad_calls(array: pylocks.LockArray, call: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        call(array)
    assert not any(lock.locked() for lock in array)


# ------------------------------------------------------------------ as locks


def test_owners_are_checked_by_index_too(array: pylocks.LockArray) -> None:
    with pytest.raises(pylocks.NotOwnerError, match="lock 3 of"):
        array.release(3)
    array.acquire(3)
    with pytest.raises(pylocks.AlreadyOwnerError, match="lock 3 of"):
        array.acquire(3)
    assert not array[4].locked()
    array.release(3)
    assert not array[3].locked()


@PACKED
@pytest.mark.parametrize("kind", KINDS)
def test_elements_are_locks_of_their_own(kind: str, packed: bool) -> None:
    """Neighbours, which may share a cache line, are held by different participants at once."""
    array = pylocks.LockArray(6, packed=packed)
    with troupe(kind, array) as made:
        first, second = made.puppets(2)
        for puppet, mine in ((first, (0, 2, 4)), (second, (1, 3, 5))):
            for i in mine:
                assert puppet.call(tasks.acquire_at, i) is True
        owners = [lock.owner for lock in array]
        assert [owner.tid for owner in owners if owner] == [first.tid, second.tid] * 3
        second.start(tasks.acquire_at, 2)
        first.call(tasks.release_when_queued_at, 2)
        assert second.finish() is True
        second.call(tasks.release_at, 2)
        assert [lock.locked() for lock in array] == [True, True, False, True, True, True]
        assert array.acquire(4, timeout=0.01) is False
        for puppet, rest in ((first, (0, 4)), (second, (1, 3, 5))):
            for i in rest:
                puppet.call(tasks.release_at, i)


@PACKED
def test_exclusion_over_all_elements(packed: bool, tmp_path: Any) -> None:
    array = pylocks.LockArray(3, packed=packed)
    tally = tasks.Tally.create(tmp_path / "tally")
    with troupe("fork", array) as made:
        puppets = made.puppets(3)
        for seed, puppet in enumerate(puppets):
            puppet.start(tasks.laps_under_all, str(tmp_path / "tally"), 60, seed)
        for puppet in puppets:
            puppet.finish()
    assert tally.value == 180
    assert not any(lock.locked() for lock in array)


def test_vcpus_and_statistics_are_the_domains(array: pylocks.LockArray) -> None:
    with array[2]:
        (me,) = array.domain.vcpus()
        assert (me.tid, me.held) == (threading.get_native_id(), 1)
    assert array.domain.stats().abandons == 0
    assert array.domain.locks() == ()


def test_repr_of_an_array(array: pylocks.LockArray, name: str) -> None:
    named = pylocks.LockArray(5, name)
    assert repr(named) == f"<pylocks.LockArray of 5 locks in domain {name!r}>"
    assert "10 locks in the anonymous domain" in repr(array)
    array.close()
    assert "10 locks" in repr(array)


# ------------------------------------------------------------------ life and names


def test_close(array: pylocks.LockArray) -> None:
    element = array[1]
    with array[2], pytest.raises(pylocks.DomainBusyError):
        array.close()
    array.close()
    array.close()
    uses: list[Callable[[], Any]] = [
        lambda: array.acquire(1),
        lambda: array.release(1),
        lambda: array[1],
        lambda: element.acquire(),
        lambda: element.locked(),
        lambda: pickle.dumps(array),
    ]
    for use in uses:
        with pytest.raises(pylocks.ClosedError):
            use()
    assert len(array) == 10


@PACKED
def test_a_name_is_one_array(name: str, packed: bool) -> None:
    one = pylocks.LockArray(20, name, packed=packed)
    two = pylocks.LockArray(20, name, packed=packed, create=False)
    assert one.domain is two.domain
    with one[19]:
        assert two[19].locked()
        done = run.python(
            "-c",
            f"import pylocks; a = pylocks.LockArray(20, {name!r}, packed={packed}, create=False)\n"
            "print(a[19].locked(), a[18].locked(), a.acquire(19, timeout=0.01), a.acquire(18))",
        )
    assert done.check() == "True False False True\n"


def test_an_array_is_not_made_into_another(name: str) -> None:
    array = pylocks.LockArray(20, name)
    for n, packed in ((21, False), (20, True), (19, False)):
        with pytest.raises(ValueError, match=f"20 locks and packed=False, not {n} and packed={packed}"):
            pylocks.LockArray(n, name, packed=packed)
    assert not array.domain.closed


def test_an_array_is_no_domain_of_single_locks(name: str, fresh_name: Callable[[], str]) -> None:
    array = pylocks.LockArray(20, name)
    uses: list[Callable[[], Any]] = [
        lambda: pylocks.TicketLock(domain=array.domain),
        lambda: pylocks.TicketLock("orders", domain=array.domain),
        lambda: array.domain.lock("orders"),
    ]
    for use in uses:
        with pytest.raises(ValueError, match="LockArray"):
            use()
    with pylocks.Domain(fresh_name()) as domain, pytest.raises(ValueError, match="not a LockArray"):
        pylocks.LockArray(20, domain.name)


def test_no_array_without_create(name: str) -> None:
    with pytest.raises(pylocks.UnknownDomainError, match=name):
        pylocks.LockArray(20, name, create=False)
