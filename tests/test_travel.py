"""Handles on their way: to pools, other start methods, unrelated processes, and where it is too late."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import ANONYMOUS, SHM, segment_path
from support import run, tasks
from support.puppet import START_METHODS, troupe
from support.wait import until

import pylocks

Maker = Callable[[str], Any]


def _anonymous(name: str) -> pylocks.TicketLock:
    return pylocks.TicketLock()


def _of_a_domain(name: str) -> pylocks.TicketLock:
    return pylocks.TicketLock(domain=pylocks.Domain())


def _bounded(name: str) -> pylocks.TicketLock:
    return pylocks.TicketLock(domain=pylocks.Domain(), policy="bounded")


def _named(name: str) -> pylocks.TicketLock:
    return pylocks.Domain(name).lock("orders")


def _element(name: str) -> pylocks.TicketLock:
    return pylocks.LockArray(100)[42]


def _packed_element_of_a_named_array(name: str) -> pylocks.TicketLock:
    return pylocks.LockArray(100, name, packed=True)[42]


MAKERS = (_anonymous, _of_a_domain, _bounded, _named, _element, _packed_element_of_a_named_array)
each_maker = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__.strip("_"))
each_method = pytest.mark.parametrize("method", START_METHODS)

# ------------------------------------------------------------------ within a process


@each_maker
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_unpickled_in_place_is_the_same_lock(make: Maker, protocol: int, name: str) -> None:
    lock = make(name)
    _same_lock(lock, pickle.loads(pickle.dumps(lock, protocol)))


@each_maker
@pytest.mark.parametrize("copied", (copy.copy, copy.deepcopy))
def test_a_copy_is_the_same_lock(make: Maker, copied: Callable[[Any], Any], name: str) -> None:
    lock = make(name)
    _same_lock(lock, copied(lock))
    _same_lock(lock, copied({"lock": [lock]})["lock"][0])


def _same_lock(lock: pylocks.TicketLock, other: pylocks.TicketLock) -> None:
    assert other is not lock or isinstance(other, pylocks.TicketLock)
    assert (other.index, other.name, other.domain) == (lock.index, lock.name, lock.domain)
    with lock:
        assert other.locked() and other.ticket == lock.ticket
        assert other.acquire(False) is False
    with other:
        assert lock.locked()


def test_domains_and_arrays_travel_too(name: str) -> None:
    for domain in (pylocks.Domain(), pylocks.Domain(name)):
        assert pickle.loads(pickle.dumps(domain)) is domain
        assert copy.deepcopy(domain) is domain
    array = pylocks.LockArray(7, packed=True)
    again = pickle.loads(pickle.dumps(array))
    assert (len(again), again.packed, again.domain) == (7, True, array.domain)
    with array[3]:
        assert again[3].locked()


# ------------------------------------------------------------------ to other processes

WORK = """
import multiprocessing, sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
import pylocks
from support import tasks

if __name__ == "__main__":
    how, method, kind, name, path = sys.argv[1:]
    context = multiprocessing.get_context(method)
    lock = {
        "anonymous": lambda: pylocks.TicketLock(),
        "named": lambda: pylocks.Domain(name).lock("orders"),
        "array": lambda: pylocks.LockArray(5),
    }[kind]()
    tally = tasks.Tally.create(Path(path))
    task = tasks.laps_under_all if kind == "array" else tasks.laps
    extra = [(path, 10, seed) if kind == "array" else (path, 10) for seed in range(4)]
    if how == "submit":
        with ProcessPoolExecutor(3, mp_context=context) as pool:
            for done in [pool.submit(task, lock, *more) for more in extra]:
                done.result()
    elif how == "map":
        with context.Pool(3) as pool:
            pool.starmap(task, [(lock, *more) for more in extra])
    elif how == "initializer":
        with context.Pool(3, initializer=tasks.keep, initargs=(lock,)) as pool:
            pool.starmap(tasks.with_kept, [(task, *more) for more in extra])
    else:
        children = [context.Process(target=task, args=(lock, *more)) for more in extra]
        for child in children: child.start()
        for child in children: child.join()
        assert [child.exitcode for child in children] == [0] * 4
    one = lock[0] if kind == "array" else lock
    print(tally.value, one.locked(), one.waiters)
"""


@each_method
@pytest.mark.parametrize(
    ("how", "kind"),
    [
        *((how, "anonymous") for how in ("submit", "map", "initializer", "process")),
        ("submit", "named"),
        ("map", "array"),
    ],
)
def test_arguments_of_pools_and_processes(
    how: str, method: str, kind: str, name: str, tmp_path: Path
) -> None:
    """And no word of leaked semaphores or segments on standard error."""
    script = tmp_path / "work.py"
    script.write_text(WORK)
    assert run.python(script, how, method, kind, name, tmp_path / "tally").check() == "40 False 0\n"


@each_maker
@each_method
def test_order_is_kept_between_parent_and_children(
    make: Maker, method: str, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "tally"
    tasks.Tally.create(path)
    lock = make(name)
    with troupe(method, lock) as made:
        children = made.puppets(2)
        lock.acquire()
        made.queue(children, tasks.visit, str(path))
        lock.release()
        assert [child.finish()[0] for child in children] == [0, 1]


@each_method
def test_a_child_passes_it_on(method: str) -> None:
    """A grandchild gets the lock from a child, not from where it was made."""
    lock = pylocks.TicketLock()
    with troupe(method, lock) as made:
        child = made.puppets(1)[0]
        data = child.call(tasks.pickled)
        again = pickle.loads(data)
        assert (again.index, again.domain) == (lock.index, lock.domain)
        other = made.puppets(2)[1]
        index, ticket = other.call(tasks.acquire_pickled, data)
        assert (index, ticket) == (lock.index, lock.ticket)
        assert lock.locked()


@pytest.mark.parametrize("through", ("domain", "array", "domain-not-created", "array-not-created"))
def test_unrelated_processes_meet_by_name(through: str, name: str) -> None:
    kind, _, existing = through.partition("-")
    create = "create=False" if existing else "create=True"
    expression = {
        "domain": f"pylocks.Domain({name!r}, {create}).lock('orders', {create})",
        "array": f"pylocks.LockArray(9, {name!r}, {create})[3]",
    }[kind]
    lock = pylocks.Domain(name).lock("orders") if kind == "domain" else pylocks.LockArray(9, name)[3]
    script = (
        f"import pylocks\nlock = {expression}\nprint('ready', flush=True)\n"
        "input(); lock.acquire(); print('held', flush=True)\n"
        "input(); lock.release(); print('gone', flush=True)"
    )
    with run.Interactive("-c", script) as other:
        assert other.line() == "ready"
        with lock:
            other.say("acquire")
            until(lambda: lock.waiters == 1, "the other process waits")
        assert other.line() == "held"
        owner = lock.owner
        assert owner is not None and (owner.pid, owner.alive) == (other.pid, True)
        other.say("release")
        assert other.line() == "gone"
        assert not lock.locked()
        assert other.wait() == 0


def test_a_program_started_by_exec_inherits_nothing(name: str) -> None:
    """Descriptors are not passed on: what another program does can't keep a segment alive."""
    kept = [pylocks.TicketLock(), pylocks.Domain(name), pylocks.LockArray(3)]
    script = (
        "import os\n"
        "for n in os.listdir('/proc/self/fd'):\n"
        "    if os.path.islink(f'/proc/self/fd/{n}'): print(os.readlink(f'/proc/self/fd/{n}'))"
    )
    done = subprocess.run([sys.executable, "-c", script], close_fds=False, capture_output=True, text=True)
    shown = done.stdout
    assert "pipe:" in shown
    assert "pylocks" not in shown
    assert kept


# ------------------------------------------------------------------ too late


def _from_a_process_that_ends(expression: str) -> bytes:
    script = f"import pickle, pylocks\nprint(pickle.dumps({expression}).hex(), end='')"
    return bytes.fromhex(run.python("-c", script).check())


@pytest.mark.parametrize(
    "expression", ("pylocks.TicketLock()", "pylocks.Domain()", "pylocks.LockArray(3)[1]")
)
def test_unpickling_after_the_process_has_ended(expression: str) -> None:
    data = _from_a_process_that_ends(expression)
    with pytest.raises(pylocks.DomainGoneError, match=r"that process has ended.*use a named one") as caught:
        pickle.loads(data)
    assert isinstance(caught.value, pylocks.DomainError)


def test_a_recycled_descriptor_is_not_mistaken_for_the_domain(tmp_path: Path) -> None:
    """The process lives, but its descriptor is now something else."""
    script = (
        "import gc, os, pickle, sys, pylocks\n"
        "lock = pylocks.TicketLock(domain=pylocks.Domain())\n"
        "fd, data = lock.domain.token()[3], pickle.dumps(lock)\n"
        "lock.domain.close(); del lock; gc.collect()\n"
        "print(data.hex(), flush=True)\n"
        "for kind in ('nothing', 'pipe', 'file', 'directory', 'another'):\n"
        "    if kind == 'pipe': os.dup2(os.pipe()[0], fd)\n"
        f"    if kind == 'file': os.dup2(os.open({str(tmp_path / 'other')!r}, os.O_RDWR | os.O_CREAT), fd)\n"
        "    if kind == 'directory': os.dup2(os.open('/', os.O_RDONLY), fd)\n"
        "    if kind == 'another': other = pylocks.Domain(); os.dup2(other.token()[3], fd)\n"
        "    print(kind, flush=True); input()\n"
    )
    with run.Interactive("-c", script) as other:
        data = bytes.fromhex(other.line())
        for kind in ("nothing", "pipe", "file", "directory", "another"):
            assert other.line() == kind
            with pytest.raises(pylocks.DomainGoneError, match=f"process {other.pid}"):
                pickle.loads(data)
            other.say("on")
    assert (tmp_path / "other").read_bytes() == b""


def test_a_named_lock_outlives_its_maker(name: str) -> None:
    data = _from_a_process_that_ends(f"pylocks.Domain({name!r}).lock('orders')")
    lock = pickle.loads(data)
    with lock:
        assert (lock.name, lock.domain.name) == ("orders", name)


def test_a_named_lock_whose_name_is_gone_or_means_another(name: str) -> None:
    data = _from_a_process_that_ends(f"pylocks.Domain({name!r}).lock('orders')")
    segment_path(name).unlink()
    with pytest.raises(pylocks.DomainGoneError, match="removed"):
        pickle.loads(data)
    assert not segment_path(name).exists()
    other = pylocks.Domain(name)
    with pytest.raises(pylocks.DomainGoneError, match="another one"):
        pickle.loads(data)
    assert other.locks() == ()


def test_a_copy_of_the_segment_is_another_domain(name: str, fresh_name: Callable[[], str]) -> None:
    """Both can be attached at once, and locks of the one say nothing about the other."""
    lock = pylocks.Domain(name).lock("orders")
    twin = fresh_name()
    segment_path(twin).write_bytes(segment_path(name).read_bytes())
    segment_path(twin).chmod(0o600)
    copied = pylocks.Domain(twin).lock("orders")
    with lock:
        assert not copied.locked()


@each_maker
def test_nothing_is_pickled_after_close(make: Maker, name: str) -> None:
    lock = make(name)
    domain, data = lock.domain, pickle.dumps(lock)
    if make is _anonymous:
        return  # the default domain belongs to everybody here
    domain.close()
    for what in (lock, domain):
        with pytest.raises(pylocks.ClosedError):
            pickle.dumps(what)
    if domain.name is None:
        with pytest.raises(pylocks.DomainGoneError):
            pickle.loads(data)
    else:
        assert pickle.loads(data).domain is not domain


def test_a_pickle_from_another_users_process(name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to become somebody else")
    lock = pylocks.TicketLock()
    data = pickle.dumps(lock)
    script = (
        "import os, pickle, sys\n"
        "import pylocks\n"
        "os.setuid(54321)\n"
        "try: pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "except pylocks.DomainPermissionError as error: print(error)\n"
    )
    assert f"process {os.getpid()}" in run.python("-c", script, data.hex()).check()


@pytest.mark.parametrize(
    "change",
    (
        lambda token, index, generation, *rest: (token, 10**9, generation, *rest),
        lambda token, index, generation, *rest: (token, -1, generation, *rest),
        lambda token, index, generation, *rest: (token, index, generation + 1, *rest),
        lambda token, index, generation, *rest: (token, 99, generation, *rest),
    ),
)
def test_a_pickle_that_was_tampered_with(change: Callable[..., tuple[Any, ...]]) -> None:
    with pylocks.Domain(locks=100) as domain:
        rebuild, arguments = pylocks.TicketLock(domain=domain).__reduce__()
        with pytest.raises((pylocks.UnknownLockError, OverflowError)):
            rebuild(*change(*arguments))


# ------------------------------------------------------------------ nothing left

CROWD = """
import multiprocessing, sys, time, pylocks
from support import tasks

def hold(lock):
    lock.acquire()
    time.sleep(1000)

if __name__ == "__main__":
    lock, array = pylocks.TicketLock(), pylocks.LockArray(1000)
    context = multiprocessing.get_context(sys.argv[1])
    children = [context.Process(target=hold, args=(lock,), daemon=True) for _ in range(3)]
    for child in children: child.start()
    while lock.waiters < 2: time.sleep(0.001)
    with array[7]:
        print(*[child.pid for child in children], flush=True)
        time.sleep(1000)
"""


@each_method
def test_nothing_is_left_when_all_are_killed(method: str, tmp_path: Path) -> None:
    script = tmp_path / "crowd.py"
    script.write_text(CROWD)
    with run.Interactive(script, method) as crowd:
        pids = [crowd.pid, *map(int, crowd.line().split())]
        mapped = Path(f"/proc/{crowd.pid}/maps").read_text()
        assert "pylocks" in mapped
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
    until(lambda: not any(map(run.alive, pids)), "all to be gone")
    assert not [entry for entry in os.listdir(SHM) if ANONYMOUS.fullmatch(entry)]


def test_the_resource_tracker_never_hears_of_us(name: str) -> None:
    """Python's tracker unlinks what it knows of when a process ends, under whoever still uses it."""
    script = (
        "import multiprocessing.resource_tracker as tracker, pickle, sys, pylocks\n"
        "known = []\n"
        "tracker.register = lambda *what: known.append(what)\n"
        "tracker._resource_tracker.register = tracker.register\n"
        f"lock, named = pylocks.TicketLock(), pylocks.Domain({name!r}).lock('orders')\n"
        "for each in (lock, named):\n"
        "    with pickle.loads(pickle.dumps(each)): pass\n"
        "print(known)"
    )
    assert run.python("-c", script).check() == "[]\n"
    assert segment_path(name).exists()
    with pylocks.Domain(name, create=False).lock("orders", create=False):
        pass


def test_pools_in_this_process_leave_no_noise(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lock = pylocks.TicketLock()
    path = tmp_path / "tally"
    tally = tasks.Tally.create(path)
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        list(pool.map(tasks.visit, [lock] * 6, [str(path)] * 6))
    with context.Pool(2) as other:
        other.starmap(tasks.visit, [(lock, str(path))] * 6)
    assert tally.value == 12
    assert capfd.readouterr().err == ""
