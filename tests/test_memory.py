"""No descriptors, no memory, no memfd: an error when it is needed, never a crash later."""

from __future__ import annotations

import errno
import os
import pickle
import resource
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from conftest import ANONYMOUS, SHM, segment_path
from support import run, tasks
from support.child import in_child
from support.puppet import KINDS, troupe

import pylocks

# ------------------------------------------------------------------ descriptors and memory


def _outcome(function: Callable[[], Any]) -> str:
    try:
        return repr(function())
    except Exception as error:
        return type(error).__name__


NO_DESCRIPTORS = """
import errno, os, pickle, resource, sys, pylocks
data, name = bytes.fromhex(sys.argv[1]), sys.argv[2]
existing = pylocks.TicketLock()
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
taken = []
try:
    while True: taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError: pass
uses = [pylocks.Domain, lambda: pylocks.Domain(name), lambda: pylocks.LockArray(3)]
uses.append(lambda: pickle.loads(data))
for spare in range(3):
    for use in uses:
        try:
            made = use()
            print("made")
            del made
        except OSError as error:
            print(type(error).__name__, errno.errorcode[error.errno], error)
    with existing: pass
    os.close(taken.pop())
for fd in taken: os.close(fd)
with pylocks.Domain().lock("orders"), pickle.loads(data), pylocks.Domain(name).lock("orders"): print("mended")
"""


def test_no_descriptors_left(name: str) -> None:
    lock = pylocks.TicketLock()
    *tries, mended = run.python("-c", NO_DESCRIPTORS, pickle.dumps(lock).hex(), name).check().splitlines()
    assert mended == "mended"
    assert len(tries) == 12
    without_any = tries[:4]
    for line in without_any:
        assert line.startswith("OSError EMFILE"), line
        assert "Too many open files" in line and "ulimit -n" in line, line
        assert "domain" in line, line
    assert all(line == "made" or line.startswith("OSError EMFILE") for line in tries)
    assert tries[-4:] == ["made"] * 4


def test_a_named_segment_survives_a_lack_of_descriptors(name: str) -> None:
    """What can't be looked at closely is not taken for a relic."""
    with pylocks.Domain(name) as domain:
        uid, index = domain.uid, domain.lock("orders").index

    def look() -> list[str]:
        pylocks.TicketLock()
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        taken, outcomes = [], []
        try:
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        for _ in range(4):
            outcomes.append(_outcome(lambda: pylocks.Domain(name).uid))
            os.close(taken.pop())
        return outcomes

    assert set(in_child(look)) <= {"OSError", repr(uid)}
    assert pylocks.Domain(name).uid == uid
    assert pylocks.Domain(name).lock("orders", create=False).index == index


@pytest.mark.parametrize(
    ("limit", "value", "code"),
    [(resource.RLIMIT_FSIZE, 1 << 20, errno.EFBIG), (resource.RLIMIT_AS, 1 << 30, errno.ENOMEM)],
    ids=("file size", "address space"),
)
def test_no_room_for_the_segment(limit: int, value: int, code: int, name: str) -> None:
    """Limits of the process: an error, and nothing left under the name."""

    def try_it() -> list[Any]:
        resource.setrlimit(limit, (value, value))
        outcomes: list[Any] = []
        for make in (
            lambda: pylocks.Domain(name, locks=1 << 26),
            lambda: pylocks.LockArray(1 << 26),
            lambda: pylocks.LockArray(1 << 26, name),
        ):
            try:
                make()
                outcomes.append("made")
            except OSError as error:
                outcomes.append((error.errno, str(error), segment_path(name).exists()))
        return outcomes

    for outcome in in_child(try_it):
        assert outcome != "made"
        number, message, left = outcome
        assert number == code
        assert "domain" in message
        assert not left


# In a private /dev/shm of its own.
FILL = """
import os, sys, pylocks
SHM = "/dev/shm"

def fill():
    with open(SHM + "/filler", "ab", buffering=0) as file:
        for size in (1 << 16, 4096):
            try:
                while file.write(bytes(size)) == size: pass
            except OSError: pass

def show(use):
    try:
        use()
        print("made")
    except pylocks.DomainFullError as error:
        print("full" if "/dev/shm" in str(error) or "memory" in str(error) else error)

"""

CREATION = (
    FILL
    + """
fill()
show(lambda: pylocks.Domain("one"))
show(lambda: pylocks.LockArray(10, "two"))
print(sorted(os.listdir(SHM)))
os.unlink(SHM + "/filler")
show(lambda: pylocks.Domain("one").lock("orders").acquire())
"""
)

USE = (
    FILL
    + """
domain = pylocks.Domain("one", locks=100_000)
array = pylocks.LockArray(100_000, "two")
fill()
show(lambda: domain.lock("orders"))
show(lambda: pylocks.TicketLock(domain=domain))
show(lambda: array[5])
show(lambda: array.acquire(99_999))
print(domain.locks(), domain.vcpus(), domain.stats().waits, array.domain.vcpus())
os.truncate(SHM + "/filler", os.stat(SHM + "/filler").st_size - 2 * 4096)
fill_again = open(SHM + "/filler", "ab", buffering=0)
lock = pylocks.TicketLock(domain=domain)
fill()
show(lock.acquire)
show(lambda: lock.acquire(False))
show(lambda: lock.acquire(timeout=1))
print(lock.locked(), lock.owner, lock.waiters, lock.ticket)
os.unlink(SHM + "/filler")
fill_again.close()
show(lambda: domain.lock("orders").acquire())
show(lock.acquire)
show(lambda: array.acquire(99_999))
"""
)

GUARD_HOLDER_DIED = (
    FILL
    + """
import pathlib
from support import header
path = pathlib.Path(SHM + "/pylocks.one")
domain = pylocks.Domain("one")
domain.lock("orders")
fill()
header.write(path, header.OWNER_DIED | 4_000_000, "guard", 0)  # as the kernel leaves it
show(lambda: domain.lock("bills"))
print(domain.locks()[0].name)
"""
)

COUNTS_THAT_LIE = (
    FILL
    + """
import pathlib
from support import header
path = pathlib.Path(SHM + "/pylocks.one")
domain = pylocks.Domain("one")
lock = domain.lock("orders")
lock.acquire()
fill()
for field in ("entries_next", "vcpus_next", "cells_next"):
    now = getattr(header.read(path), field)
    header.write(path, 9999 if field == "cells_next" else 4096, field)
    show(domain.locks)
    show(lambda: domain.lock(field))
    show(domain.recover)
    print(len(domain.vcpus()), lock.owner.alive, domain.stats().waits)
    header.write(path, now, field)
lock.release()
show(domain.recover)
print(domain.locks()[0].name)
"""
)

MOUNT = 'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"'


def in_private_shm(script: str, size: str = "2m", prepare: str = "") -> run.Done:
    """Run the script with a /dev/shm of that size; skips the test where that is not allowed."""
    shell = MOUNT.format(size=size).replace("&&", f"&& {prepare}" if prepare else "&&")
    unshare = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
    try:
        probe = run.python("-c", "", before=(*unshare, MOUNT.format(size=size), "sh"))
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) here")
    if probe.status != 0:
        pytest.skip(f"no mount namespace of one's own is allowed here: {probe.err.strip()}")
    return run.python("-c", script, before=(*unshare, shell, "sh"))


def test_no_memory_for_a_new_segment() -> None:
    shown = in_private_shm(CREATION).check().splitlines()
    assert shown == ["full", "full", "['filler']", "made"]


def test_no_memory_for_what_is_used_next() -> None:
    """An error when a page is first needed; never SIGBUS when it is touched."""
    shown = in_private_shm(USE).check().splitlines()
    assert shown == [*["full"] * 4, "() () 0 ()", *["full"] * 3, "False None 0 0", *["made"] * 3]


def test_no_memory_for_what_a_count_claims_to_be_there() -> None:
    """Counts that were overwritten lead nobody to pages that were never reserved."""
    shown = in_private_shm(COUNTS_THAT_LIE).check().splitlines()
    assert shown[:4] == ["full", "full", "made", "1 True 0"]
    assert shown[4:8] == ["made", "made", "full", "1 True 0"]
    assert shown[8:11] == ["made", "full", "made"]
    assert shown[-2:] == ["made", "orders"]


def test_no_memory_while_the_mess_of_the_dead_is_cleaned_up() -> None:
    """Who takes over the guard of somebody who died looks at no page that was never reserved."""
    assert in_private_shm(GUARD_HOLDER_DIED).check() == "made\norders\n"


def test_shared_memory_that_is_read_only() -> None:
    script = (
        "import pylocks\n"
        "for create in (True, False):\n"
        "    try: pylocks.Domain('one', create=create)\n"
        "    except pylocks.DomainError as error: print(type(error).__name__, error)\n"
        "with pylocks.TicketLock(): print('anonymous')\n"
    )
    done = in_private_shm(script, prepare="mount -o remount,ro /dev/shm && ")
    made, found, anonymous = done.check().splitlines()
    assert made.startswith("DomainPermissionError") and "read-only" in made and "'one'" in made
    assert found.startswith("UnknownDomainError")
    assert anonymous == "anonymous"


# ------------------------------------------------------------------ an older system


@pytest.mark.parametrize("code", (errno.ENOSYS, errno.EPERM))
def test_without_memfd(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that is gone before anybody could see it, and everything else as ever."""

    def missing(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "memfd_create", missing)
    with pylocks.Domain() as domain:
        assert not [entry for entry in os.listdir(SHM) if ANONYMOUS.fullmatch(entry)]
        lock = pylocks.TicketLock(domain=domain)
        for kind in KINDS:
            with troupe(kind, lock) as made:
                puppet = made.puppets(1)[0]
                lock.acquire()
                made.queue([puppet], tasks.acquire)
                lock.release()
                assert puppet.finish() is True
                puppet.call(tasks.release)


def test_an_anonymous_segment_keeps_its_length() -> None:
    """Sealed: nobody who gets hold of it can make others fault."""
    with pylocks.Domain() as domain:
        path = f"/proc/self/fd/{domain.token()[3]}"
        size = os.stat(path).st_size
        for length in (0, size - 4096, size + 4096):
            with pytest.raises(PermissionError):
                os.truncate(path, length)
        assert os.stat(path).st_size == size


def test_nobody_else_can_open_it() -> None:
    assert psutil.Process().pid == os.getpid()
    with pylocks.Domain() as domain:
        found = os.fstat(domain.token()[3])
        assert found.st_uid == os.geteuid()
        assert not os.get_inheritable(domain.token()[3])
