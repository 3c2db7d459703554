"""lock_event=counters: what is counted of domains and locks, and what it costs those who look."""

from __future__ import annotations

import os

import pytest
from conftest import segment_path
from support.counting import counting

import pylocks
from pylocks import events
from pylocks._core import lib
from pylocks.events import BOUNDS_NS, EMPTY, Histogram

SAMPLE_EVERY = 127

# ------------------------------------------------------------------ figures


def test_processes_count_every_contended_acquisition() -> None:
    """Whoever queued and entered is in the lock's histogram, the domain's, and both counts."""
    found = counting("""
domain = pylocks.Domain()
locks = [pylocks.TicketLock(domain=domain), pylocks.TicketLock(domain=domain, policy="bounded")]
def rounds():
    for _ in range(300):
        for lock in locks:
            with lock: sum(range(200))
children = [forked(rounds) for _ in range(4)]
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
one, two = map(of, locks)
all = events.domain_events(domain)
print(json.dumps([
    [one.acquisitions, two.acquisitions, all.acquisitions],
    [one.contended - one.wait.count, two.contended - two.wait.count, all.stats.waits - all.wait.count],
    one.contended + two.contended == all.stats.waits,
    [one.parks + two.parks - all.stats.parks, one.kicks + two.kicks - all.stats.kicks],
    one.wait + two.wait == all.wait, one.hold + two.hold == all.hold,
    [e.index for e in events.lock_events(domain)] == [e.index for e in (one, two) if e.counted],
    [one.hold.count >= one.contended, two.hold.count >= two.contended],
]))
""")
    assert found == [[1200, 1200, 2400], [0, 0, 0], True, [0, 0], True, True, True, [True, True]]


@pytest.mark.parametrize("policy", ["fifo", "bounded"])
def test_waits_and_holds_take_as_long_as_they_take(policy: str) -> None:
    wait, hold, least_wait, least_hold, most, parks = counting(f"""
lock = pylocks.TicketLock(policy={policy!r})
begins = time.monotonic_ns()
lock.acquire()
times = []
def held():
    times.append(time.monotonic_ns())
    time.sleep(0.02)
    times.append(time.monotonic_ns())
thread = waits_behind(lock, held)
queued = time.monotonic_ns()
time.sleep(0.03)
released = time.monotonic_ns()
lock.release()
thread.join()
ends = time.monotonic_ns()
found = of(lock)
print(json.dumps([found.wait.sum_ns, found.hold.sum_ns, released - queued, times[1] - times[0],
                  ends - begins, found.parks]))
""")
    assert least_wait <= wait <= most
    # The clock of holds may be another, whose rate is known to a thousandth.
    assert least_hold * 0.99 <= hold <= most * 1.01
    assert parks >= 1


def test_of_uncontended_holds_a_sample_is_timed() -> None:
    count, acquisitions, contended = counting("""
lock = pylocks.TicketLock("x", domain=pylocks.Domain())
for _ in range(1000):
    with lock: pass
found = of(lock)
print(json.dumps([found.hold.count, found.acquisitions, found.contended]))
""")
    assert (count, acquisitions, contended) == (1000 // SAMPLE_EVERY, 1000, 0)


def test_holds_that_are_not_nested_are_told_apart() -> None:
    """Two locks released in the order in which they were taken, both after a wait."""
    found = counting("""
domain = pylocks.Domain()
locks = [pylocks.TicketLock(domain=domain) for _ in range(3)]
for lock in locks: lock.acquire()
def take():
    for lock in locks: lock.acquire()
    for lock in locks: lock.release()
thread = threading.Thread(target=take)
thread.start()
for lock in locks:
    waiters(lock, 1)
    lock.release()
thread.join()
print(json.dumps([(of(lock).hold.count, of(lock).wait.count) for lock in locks]))
""")
    assert found == [[1, 1]] * 3


def test_more_holds_at_once_than_are_timed() -> None:
    """Those that are too many are left out; nothing else is disturbed."""
    timed, waited, acquired = counting("""
domain = pylocks.Domain()
locks = [pylocks.TicketLock(domain=domain) for _ in range(12)]
for lock in locks: lock.acquire()
def take():
    for lock in locks: lock.acquire()
    for lock in reversed(locks): lock.release()
thread = threading.Thread(target=take)
thread.start()
for lock in locks:
    waiters(lock, 1)
    lock.release()
thread.join()
print(json.dumps([[sum(getattr(of(lock), what).count for lock in locks) for what in ("hold", "wait")],
                  sum(of(lock).acquisitions for lock in locks)]).replace("]", "").replace("[", "").join("[]"))
""")
    assert (timed, waited, acquired) == (8, 12, 24)


def test_tickets_that_were_left_are_counted() -> None:
    abandons, contended, waited = counting("""
lock = pylocks.TicketLock()
with lock:
    thread = threading.Thread(target=lambda: lock.acquire(timeout=0.001))
    thread.start(); thread.join()
found = of(lock)
print(json.dumps([found.abandons, found.contended, found.wait.count]))
""")
    assert (abandons, contended, waited) == (1, 1, 0)


@pytest.mark.parametrize("policy", ["fifo", "bounded"])
@pytest.mark.parametrize("how", ["recover", "acquire"])
def test_a_holders_death_is_counted_whoever_recovers_it(policy: str, how: str) -> None:
    found = counting(f"""
import warnings
warnings.simplefilter("ignore")
lock = pylocks.TicketLock(policy={policy!r})
def die():
    lock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)
os.waitpid(forked(die), 0)
if {how!r} == "recover":
    lock.domain.recover()
lock.acquire()
lock.release()
print(json.dumps([of(lock).owner_deaths, lock.domain.stats().owner_deaths, of(lock).hold.count]))
""")
    assert found == [1, 1, 0]


def test_a_death_in_a_timed_hold_leaves_nothing_behind() -> None:
    """The next hold is timed by itself."""
    counted, deaths = counting("""
import warnings
warnings.simplefilter("ignore")
lock = pylocks.TicketLock()
lock.acquire()
def die():
    lock.acquire()
    os.kill(os.getpid(), signal.SIGKILL)
child = forked(die)
waiters(lock, 1)
lock.release()
os.waitpid(child, 0)
lock.domain.recover()
lock.acquire()
thread = waits_behind(lock)
lock.release()
thread.join()
print(json.dumps([of(lock).hold.count, of(lock).owner_deaths]))
""")
    assert (counted, deaths) == (1, 1)


# -------------------------------------------------------------------- where


def test_locks_beyond_the_first_are_counted_in_the_domain_alone() -> None:
    of_last, of_first, waits = counting(f"""
array = pylocks.LockArray({lib.PLK_TALLIED} + 1)
for index in (0, {lib.PLK_TALLIED}):
    lock = array[index]
    lock.acquire()
    thread = waits_behind(lock)
    lock.release()
    thread.join()
shown = [of(array[index]).contended for index in ({lib.PLK_TALLIED}, 0)]
print(json.dumps([*shown, events.domain_events(array.domain).wait.count]))
""")
    assert (of_last, of_first, waits) == (0, 1, 2)


def test_a_new_lock_at_the_place_of_another_begins_anew() -> None:
    before, after, acquisitions = counting("""
import gc
domain = pylocks.Domain()
lock = pylocks.TicketLock(domain=domain)
lock.acquire()
thread = waits_behind(lock)
lock.release(); thread.join()
before, index = of(lock), lock.index
del lock, thread
gc.collect()
lock = pylocks.TicketLock(domain=domain)
assert lock.index == index
with lock: pass
after = of(lock)
print(json.dumps([before.contended, [after.contended, after.wait.count, after.parks], after.acquisitions]))
""")
    assert (before, after, acquisitions) == (1, [0, 0, 0], 1)


def test_without_patches_the_contended_paths_alone_are_counted() -> None:
    """A free lock makes no call then; so the end of a hold is not seen."""
    contended, waited, held = counting(
        """
lock = pylocks.TicketLock()
for _ in range(20):
    lock.acquire()
    thread = waits_behind(lock)
    lock.release(); thread.join()
found = of(lock)
print(json.dumps([found.contended, found.wait.count, found.hold.count]))
""",
        PYLOCKS_PATCH="off",
    )
    assert (contended, waited, held) == (20, 20, 0)


def test_native_waits_are_counted() -> None:
    contended, waited, held = counting(
        """
lock = pylocks.TicketLock()
lock.acquire()
thread = threading.Thread(target=lambda: (lock.acquire(), lock.release()))
thread.start()
waiters(lock, 1)
lock.release(); thread.join()
found = of(lock)
print(json.dumps([found.contended, found.wait.count, found.hold.count]))
""",
        ops="",
        PYLOCKS_PROTOCOL="native",
    )
    assert (contended, waited, held) == (1, 1, 1)


# -------------------------------------------------------------------- costs


def data_behind(path: str | os.PathLike[str], offset: int) -> bool:
    """The file has memory at or after the offset."""
    fd = os.open(path, os.O_RDONLY)
    try:
        return os.lseek(fd, offset, os.SEEK_DATA) >= 0
    except OSError:
        return False
    finally:
        os.close(fd)


def test_off_nothing_is_counted_and_nothing_reserved(name: str) -> None:
    from support import header

    with pylocks.Domain(name) as domain:
        lock = domain.lock("orders")
        for _ in range(1000):
            with lock:
                pass
        (found,) = events.lock_events(domain)
        assert (found.acquisitions, found.counted, found.name) == (1000, False, "orders")
        assert events.domain_events(domain).wait == EMPTY
        path = segment_path(name)
        assert not data_behind(path, header.read(path).geometry.off_tallies)


def test_looking_reserves_no_memory(name: str) -> None:
    with pylocks.Domain(name) as domain:
        for number in range(200):
            domain.lock(f"lock {number}")
        before = os.stat(segment_path(name)).st_blocks
        assert len(events.lock_events(domain)) == 200
        events.domain_events(domain)
        assert os.stat(segment_path(name)).st_blocks == before


def test_looking_takes_no_lock_that_others_hold() -> None:
    """Nor waits for who is stopped."""
    assert counting("""
lock = pylocks.TicketLock()
lock.acquire()
before = of(lock)
child = forked(lambda: (os.kill(os.getpid(), signal.SIGSTOP), lock.acquire()))
os.waitpid(child, os.WUNTRACED)
print(json.dumps([of(lock) == before, events.domain_events(lock.domain).acquisitions]))
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
""") == [True, 0]


# ---------------------------------------------------------------- bad input


def test_a_closed_domain() -> None:
    domain = pylocks.Domain()
    domain.close()
    for look in (events.domain_events, events.lock_events):
        with pytest.raises(pylocks.ClosedError):
            look(domain)


def test_a_lock_that_does_not_exist() -> None:
    with pylocks.Domain(locks=4) as domain, pytest.raises(pylocks.UnknownLockError, match="no lock 4"):
        events.lock_events(domain, [4])


def test_a_descriptor_that_was_closed_behind_our_back() -> None:
    error = counting("""
domain = pylocks.Domain()
os.close(domain.token()[3])
try:
    events.domain_events(domain)
except pylocks.DomainError as error:
    print(json.dumps(str(error)))
""")
    assert "closed the descriptor" in error and "another process" in error


def test_no_memory_for_the_figures_is_no_error() -> None:
    """Locks work, and are not counted."""
    from test_memory import FILL, in_private_shm

    shown = (
        in_private_shm(
            "import os\nos.environ['PYLOCKS_OPS'] = 'lock_event=trace'\n"
            + FILL
            + """
import threading
from pylocks import events
domain = pylocks.Domain("one")
lock = domain.lock("orders")
with lock: pass
fill()
def use():
    with lock: pass
for _ in range(3):
    thread = threading.Thread(target=use)
    show(lambda: (thread.start(), thread.join()))
os.unlink(SHM + "/filler")
use()
print(events.lock_events(domain)[0].acquisitions)
"""
        )
        .check()
        .splitlines()
    )
    assert shown[:3] == ["made"] * 3
    assert int(shown[3]) >= 1


# ---------------------------------------------------------------- histogram


def test_buckets() -> None:
    assert BOUNDS_NS[0] == 128
    assert all(bound == BOUNDS_NS[0] << i for i, bound in enumerate(BOUNDS_NS))
    assert len(EMPTY.counts) == len(BOUNDS_NS) + 1


def test_quantiles() -> None:
    counts = [0] * len(EMPTY.counts)
    counts[0], counts[3], counts[-1] = 5, 4, 1
    made = Histogram(tuple(counts), 1)
    assert made.count == 10
    assert [made.quantile(q) for q in (0, 0.5, 0.9, 1)] == [128, 128, 1024, float("inf")]
    assert EMPTY.quantile(0.5) is None
    for bad in (-0.1, 1.1):
        with pytest.raises(ValueError, match="between 0 and 1"):
            made.quantile(bad)
