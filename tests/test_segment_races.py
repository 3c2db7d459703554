"""Segments that are made, attached and removed by several at once, with each order of steps forced by
stopping one of them at each of its system calls; and what the system may refuse at each."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import segment_path
from ptracing import SYS_MMAP, SYS_MPROTECT, SYS_PKEY_MPROTECT, system_calls, why_not
from support import header, run
from support.segments import CREATE, abandoned, refused, snapshot
from support.stopped import Stopped, at_each_call
from support.wait import PATIENCE_S
from test_memory import in_private_shm

import pylocks
from pylocks import errors

STEPPED = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")

HOLD = """
import sys, pylocks
lock = pylocks.Domain(sys.argv[1]).lock("orders")
print(lock.domain.uid.hex(), flush=True)
input()
"""


@pytest.fixture(params=("new", "left behind", "in use"))
def before(request: pytest.FixtureRequest, name: str) -> Iterator[str]:
    """What lies under the name: nothing, a segment that nobody uses, one that somebody does."""
    pylocks.TicketLock()  # this process, and so each of its children, has decided how to wait
    if request.param == "left behind":
        abandoned(name)
    if request.param == "in use":
        with run.Interactive("-c", HOLD, name) as holder:
            assert holder.line()
            yield request.param
    else:
        yield request.param


def attach(name: str) -> bytes:
    """Attach, and use a lock."""
    domain = pylocks.Domain(name)
    lock = domain.lock("orders")
    assert lock.acquire(timeout=30)
    lock.release()
    return domain.uid


def works(name: str) -> bytes:
    """The domain is in order for whoever comes now; what it is."""
    with pylocks.Domain(name) as domain:
        lock = domain.lock("orders")
        assert lock.acquire(timeout=30), "a lock is lost"
        lock.release()
        assert domain.lock("bills").acquire(timeout=30)
        domain.lock("bills").release()
        assert {each.name for each in domain.locks()} == {"orders", "bills"}
        assert len(domain.vcpus()) <= 2, "dead vCPUs remain"
        return domain.uid


def fresh(before: str, name: str) -> None:
    """As it was at first, for the next round."""
    if before != "in use":
        segment_path(name).unlink(missing_ok=True)
    if before == "left behind":
        abandoned(name)


def uid_in(path: Path) -> bytes | None:
    """Of a finished segment."""
    with suppress(FileNotFoundError, ValueError):
        found = header.read(path)
        return bytes(found.uid) if found.magic == header.MAGIC else None
    return None


# ------------------------------------------------------------------ steps


@STEPPED
@pytest.mark.filterwarnings("ignore::pylocks.OwnerDiedWarning")
def test_killed_at_each_system_call(before: str, name: str) -> None:
    """Making, repairing, resetting, attaching and first using a domain."""
    seen = set()
    for _, call, child in at_each_call(lambda: attach(name)):
        seen.add(call)
        child.kill()
        works(name)
        fresh(before, name)
    assert {"flock", "mmap", "fstat"} <= seen
    assert ("ftruncate" in seen) == (before == "new")


@STEPPED
@pytest.mark.parametrize("before", ("new", "left behind"), indirect=True)
@pytest.mark.parametrize("after", ("nothing", "another"))
def test_the_name_is_removed_at_each_system_call(after: str, before: str, name: str) -> None:
    """Whoever is just attaching gets a domain that works: the old one, or one that is under the name."""
    for number, call, child in at_each_call(lambda: attach(name)):
        path = segment_path(name)
        there_was = path.exists()  # which it may have opened, and then it may be left alone with it
        was = uid_in(path)
        path.unlink(missing_ok=True)
        now = works(name) if after == "another" else None
        child.run()
        error, uid = child.outcome
        assert not error, f"at {call} ({number}): {error} {uid}"
        if was is not None or not there_was:
            assert uid in {was, now or uid_in(path)} - {None}, f"at {call} ({number}) it got a third one"
        fresh(before, name)


@STEPPED
def test_another_creator_at_each_system_call(before: str, name: str) -> None:
    """Both end in the same domain, whoever is first, and neither resets what the other uses."""
    for number, call, child in at_each_call(lambda: attach(name)):
        with Stopped(lambda: attach(name)) as other:
            other.run_freely()
            ended = other.ended(0.03)  # or it waits for the first by now, or is about to
            child.run()
            assert ended or other.ended(PATIENCE_S), f"at {call} ({number})"
            assert other.outcome == child.outcome, f"at {call} ({number})"
            assert child.outcome[0] == "", child.outcome
            assert works(name) == child.outcome[1]
        child.kill()
        fresh(before, name)


REFUSALS = {
    "open": errno.EMFILE, "memfd_create": errno.EMFILE, "fcntl": errno.EMFILE, "mmap": errno.ENOMEM,
    "ftruncate": errno.ENOSPC, "fallocate": errno.ENOSPC, "pwrite": errno.ENOSPC, "pread": errno.EIO,
    "fstat": errno.EIO, "flock": errno.ENOLCK, "fchmod": errno.EPERM, "lseek": errno.EIO,
    "getrandom": errno.ENOSYS, "madvise": errno.ENOMEM, "membarrier": errno.EPERM,
}  # fmt: skip


@STEPPED
def test_each_system_call_is_refused(before: str, name: str) -> None:
    """A clear error, or it does without; never a crash, and the next one finds all in order."""
    refused_calls = set()
    for number, call, child in at_each_call(lambda: attach(name)):
        if call not in REFUSALS:
            continue
        child.refuse(REFUSALS[call])
        child.run()
        kind, message = child.outcome
        refused_calls.add(call)
        if kind:
            known = getattr(errors, kind, None) or getattr(__builtins__, kind, OSError)
            assert issubclass(known, (errors.PylocksError, OSError, MemoryError)), (
                f"{call} ({number}): {message}"
            )
            if known is not MemoryError:
                assert name in str(message), f"{call} ({number}): {kind} {message}"
        child.kill()
        if before == "new" and kind and segment_path(name).exists():
            # Not locked yet, it can't be removed: it may be somebody else's by now.
            assert segment_path(name).stat().st_size == 0 or uid_in(segment_path(name)), f"{call} ({number})"
        works(name)
        fresh(before, name)
    assert {"open", "mmap", "flock", "pread", "fallocate"} <= refused_calls


INTERRUPTIBLE = ("fallocate", "pread", "flock")


@STEPPED
def test_each_system_call_is_interrupted(before: str, name: str) -> None:
    """By a signal whose handler does nothing: the call is made again."""
    for number, call, child in at_each_call(lambda: attach(name)):
        if call in INTERRUPTIBLE:
            child.refuse(errno.EINTR)
            child.run()
            assert child.outcome[0] == "", f"{call} ({number}): {child.outcome}"
            child.kill()
            fresh(before, name)


# ------------------------------------------------------------------ no memory, no /dev/shm

GROWING = """
import os, pylocks
kept = []
def usable(lock):
    try: return lock.acquire(False) in (True, False)
    except pylocks.DomainFullError: return True
try:
    domain = pylocks.Domain("one", locks=300, vcpus=20)
    kept.append(domain)
    kept += [domain.lock(f"name {i}") for i in range(80)]
    for lock in kept[1:]:
        lock.acquire()
    print("made")
except pylocks.DomainFullError as error:
    print("full", len(kept))
    assert "memory" in str(error) and "'one'" in str(error), error
assert all(lock.locked() or usable(lock) for lock in kept[1:])
assert kept or not os.listdir("/dev/shm"), os.listdir("/dev/shm")
"""


def test_a_filesystem_that_is_full_sooner_and_later() -> None:
    """Whichever page is the first that there is no memory for."""
    outcomes = []
    pages = [1, 2, 9, *range(48, 60), 124]
    for count in pages:
        done = in_private_shm(GROWING, size=f"{count * 4}k")
        outcomes.append(done.check().strip())
    assert outcomes[0] == "full 0" and outcomes[-1] == "made"
    assert len(set(outcomes)) >= 3, outcomes


MISSING = """
import pylocks
for create in (True, False):
    try: pylocks.Domain("one", create=create)
    except (pylocks.DomainError, OSError) as error: print(type(error).__name__, error)
with pylocks.TicketLock(): print("anonymous")
"""


@pytest.mark.parametrize(
    ("prepare", "kinds"),
    [
        ("umount /dev/shm && mount -t tmpfs tmpfs /dev && ", ("DomainError", "UnknownDomainError")),
        (
            "umount /dev/shm && mount -t tmpfs tmpfs /dev && touch /dev/shm && ",
            ("NotADirectoryError", "NotADirectoryError"),
        ),
    ],
    ids=("no directory", "a file"),
)
def test_without_shared_memory_there_are_only_anonymous_domains(prepare: str, kinds: tuple[str, str]) -> None:
    made, found, anonymous = in_private_shm(MISSING, prepare=prepare).check().splitlines()
    for line, kind in ((made, kinds[0]), (found, kinds[1])):
        assert line.startswith(f"{kind} ") and "'one'" in line and "/dev/shm" in line, line
    assert anonymous == "anonymous"


# ------------------------------------------------------------------ other kinds of file


@CREATE
@pytest.mark.parametrize("kind", (stat.S_IFCHR, stat.S_IFBLK), ids=("character", "block"))
def test_a_device(kind: int, create: bool, name: str) -> None:
    path = segment_path(name)
    try:
        os.mknod(path, kind | 0o600, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices can't be made here")
    refused(errors.ForeignFileError, name, create=create)
    assert os.lstat(path).st_rdev == os.makedev(1, 3)


def test_a_segment_with_two_names(name: str, fresh_name: Callable[[], str]) -> None:
    """A hard link: one domain, under either, and removing one leaves the other."""
    other = fresh_name()
    with pylocks.Domain(name) as domain:
        os.link(segment_path(name), segment_path(other))
        assert pylocks.Domain(other) is domain
        second = run.python("-c", HOLD, other, stdin=b"\n").check().strip()
        assert second == domain.uid.hex()
        domain.unlink()
        assert not segment_path(name).exists()
    with pylocks.Domain(other, create=False) as again:
        assert again.uid == domain.uid


def test_a_foreign_file_with_two_names(name: str, tmp_path: Path) -> None:
    """Somebody's document, linked to from /dev/shm, is not formatted."""
    document = segment_path(name).with_name(f"{segment_path(name).name}.document")
    document.write_text("of some value")
    document.chmod(0o600)
    before = snapshot(document)
    try:
        os.link(document, segment_path(name))
        for create in (True, False):
            refused(errors.ForeignFileError, name, "left untouched", create=create)
        assert (document.read_text(), document.stat().st_mode) == ("of some value", before[1])
    finally:
        document.unlink()


# ------------------------------------------------------------------ protection

CONFIGURATIONS: list[dict[str, str]] = [
    {"PYLOCKS_PATCH": "off"},
    {"PYLOCKS_PROTOCOL": "native"},
    {"PYLOCKS_PROTOCOL": "native", "PYLOCKS_PATCH": "off"},
    {"PYLOCKS_OPS": "lock_event=counters,lock_spinning=yield,unlock_barrier=fence"},
]

ALL_USES = """
import sys, pylocks
name = {name!r}
with pylocks.TicketLock(), pylocks.Domain(name).lock("orders"), pylocks.LockArray(10)[3]: pass
domain = pylocks.Domain(name)
domain.recover()
writable = [line for line in open("/proc/self/maps") if "w" in line.split()[1] and "x" in line.split()[1]]
shared = [line.split()[1] for line in open("/proc/self/maps") if "pylocks" in line and "/_" not in line]
assert not writable, writable
assert set(shared) == {{"rw-s"}}, shared
domain.close()
domain.unlink()
"""


@STEPPED
@pytest.mark.parametrize("settings", CONFIGURATIONS, ids=lambda each: ",".join(each.values()))
def test_no_memory_is_ever_made_writable_and_executable(settings: dict[str, str], name: str) -> None:
    """In any configuration; test_uncontended.py has the automatic one."""
    calls = system_calls(ALL_USES.format(name=name), **settings)
    protections = [
        registers["rdx"]
        for number, registers in calls
        if number in (SYS_MMAP, SYS_MPROTECT, SYS_PKEY_MPROTECT)
    ]
    assert len(protections) > 10
    assert not [prot for prot in protections if prot & 2 and prot & 4]
    with suppress(FileNotFoundError):
        segment_path(name).unlink()
