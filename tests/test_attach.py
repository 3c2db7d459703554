"""A domain's name that means something stale, half made, somebody else's, or nothing; and races for it."""

from __future__ import annotations

import errno
import os
import pickle
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conftest import segment_path
from support import header, run, tasks
from support.child import in_child
from support.puppet import troupe
from support.segments import CREATE, abandoned, refused, snapshot
from support.wait import until

import pylocks
from pylocks import errors

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become or make somebody else")

# ------------------------------------------------------------------ stale or half made


def test_a_segment_from_before_the_last_start_is_replaced(name: str) -> None:
    path = abandoned(name)
    header.write(path, header.read(path).boot[0] ^ 1, "boot", 0)
    before = snapshot(path)
    refused(errors.StaleDomainError, name, "last start", str(os.getpid()), create=False)
    assert snapshot(path) == before
    domain = pylocks.Domain(name)
    assert domain.locks() == ()
    assert path.stat().st_ino != before[0]
    with domain.lock("orders"):
        pass


@CREATE
def test_a_stale_segment_that_somebody_uses(create: bool, name: str) -> None:
    """Which can only be a segment that was tampered with: it is refused, not taken away."""
    with troupe("spawn", pylocks.Domain(name).lock("orders")) as made:
        (user,) = made.puppets(1)
        made.lock.domain.close()
        path = segment_path(name)
        header.write(path, header.read(path).boot[15] ^ 1, "boot", 15)
        before = snapshot(path)
        refused(errors.StaleDomainError, name, create=create)
        assert snapshot(path) == before
        user.call(tasks.acquire)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _only_the_mark(path: Path) -> None:
    path.write_bytes(header.FORMATTING)


def _mark_and_length(path: Path) -> None:
    path.write_bytes(header.FORMATTING)
    os.truncate(path, 5_000_000)


def _all_but_the_last_store(path: Path) -> None:
    abandoned(path.name.removeprefix("pylocks."))
    header.poke(path, 0, header.FORMATTING)


HALVES = (_empty, _only_the_mark, _mark_and_length, _all_but_the_last_store)


@pytest.mark.parametrize("make", HALVES)
def test_a_segment_whose_creator_died_is_made_anew(make: Callable[[Path], None], name: str) -> None:
    path = segment_path(name)
    make(path)
    path.chmod(0o600)
    message = refused(errors.UnknownDomainError, name, "never finished", create=False)
    assert message.startswith(f"[Errno {errno.ENOENT}]")
    with pylocks.Domain(name, locks=3) as domain:
        assert (domain.lock_limit, domain.locks()) == (3, ())
        with domain.lock("orders"):
            assert pylocks.Domain(name, create=False) is domain
    assert header.read(path).magic == header.MAGIC


CREATING = """
import sys, pylocks
from pylocks import segment
real = segment.format_fd
def format_fd(*arguments):
    print("at work", flush=True)
    if input() == "fail": raise OSError("no")
    return real(*arguments)
segment.format_fd = format_fd
try: print(pylocks.Domain(sys.argv[1]).uid.hex(), flush=True)
except OSError: print("failed", flush=True)
input()
"""


def looked_at(path: Path) -> bool:
    """This process has opened the file."""
    inode = path.stat().st_ino
    for fd in os.listdir("/proc/self/fd"):
        try:
            if os.stat(f"/proc/self/fd/{fd}").st_ino == inode:
                return True
        except OSError:
            pass
    return False


@pytest.mark.parametrize("end", ("go on", "die", "fail"))
def test_others_wait_for_a_creator_at_work(end: str, name: str) -> None:
    with (
        run.Interactive("-c", CREATING, name) as creator,
        troupe("threads", pylocks.TicketLock()) as made,
    ):
        assert creator.line() == "at work"
        puppets = made.puppets(2)
        for puppet in puppets:
            puppet.start(tasks.uid_of, name)
        until(lambda: looked_at(segment_path(name)), "one looks at the file")
        assert all(puppet.busy for puppet in puppets)
        if end == "die":
            creator.kill()
        else:
            creator.say(end)
        found = {puppet.finish() for puppet in puppets}
        assert len(found) == 1
        if end != "die":
            assert creator.line() == ("failed" if end == "fail" else found.pop().hex())


def test_a_creator_that_does_not_get_on_with_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pylocks.segment.CREATOR_PATIENCE_S", 0.2)
    with run.Interactive("-c", CREATING, name) as creator:
        assert creator.line() == "at work"
        refused(errors.DomainError, name, "half made")


@pytest.mark.parametrize("kind", ("fork", "spawn"))
def test_many_creators_at_once_make_one_domain(kind: str, fresh_name: Callable[[], str]) -> None:
    start = pylocks.TicketLock()
    with troupe(kind, start) as made:
        puppets = made.puppets(4)
        for _ in range(25):
            name = fresh_name()
            start.acquire()
            for puppet in puppets:
                puppet.start(tasks.uid_of, name)
            start.release()
            found = {puppet.finish() for puppet in puppets}
            assert found == {pylocks.Domain(name, create=False).uid}


GAP = """
import fcntl, subprocess, sys, pylocks
from support import run
from pylocks import segment
def settle(opened):
    fcntl.flock(opened.fd, fcntl.LOCK_UN)
    segment.Named.settle = real
    other = run.Interactive("-c", OTHER, sys.argv[1], environment=run.settings(PYLOCKS_PROTOCOL="native"))
    assert other.line() == "native"
    if sys.argv[2] == "dies": other.kill()
    others.append(other)
    real(opened)
OTHER = '''import sys, pylocks
domain = pylocks.Domain(sys.argv[1]); print(domain.protocol, flush=True); input()'''
real, segment.Named.settle, others = segment.Named.settle, settle, []
try: print(pylocks.Domain(sys.argv[1], protocol="enlightened").protocol)
except pylocks.ProtocolMismatchError: print("refused")
"""


@pytest.mark.parametrize("other", ("lives", "dies"))
@pytest.mark.parametrize("before", ("new", "left behind"))
def test_somebody_else_is_alone_between_making_and_using(before: str, other: str, name: str) -> None:
    """The kernel turns an exclusive flock into a shared one by way of none at all."""
    if before == "left behind":
        abandoned(name)
    done = run.python("-c", GAP, name, other)
    assert done.out == ("refused\n" if other == "lives" else "enlightened\n"), done.err
    assert done.status == 0


def test_a_guard_that_nobody_can_ever_release(name: str) -> None:
    """As in a copy of a segment; its holder is no process of this machine."""
    path = abandoned(name)
    header.write(path, 4_000_000, "guard", 0)
    script = "import sys, pylocks; print(pylocks.Domain(sys.argv[1]).lock('new').acquire())"
    assert run.python("-c", script, name, limit=30).check() == "True\n"


# ------------------------------------------------------------------ descriptors that are gone


def lose_descriptors(log: Path) -> tuple[list[int], int]:
    """Close all, as daemons do, and let a file of one's own take their numbers: these, its length."""
    numbers = [int(fd) for fd in os.listdir("/proc/self/fd") if int(fd) > 2]
    fd = os.open(log, os.O_RDWR | os.O_CREAT)
    os.write(fd, b"a line of a log\n")
    taken = [os.dup2(fd, number) for number in numbers if _is_open(number)]
    return taken, os.fstat(fd).st_size


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("named", (True, False), ids=("named", "anonymous"))
def test_other_files_under_our_numbers_are_left_alone(named: bool, name: str, tmp_path: Path) -> None:
    domain = pylocks.Domain(name if named else None)
    lock = domain.lock("orders")
    array = pylocks.LockArray(100_000)
    log = tmp_path / "log"
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            numbers, size = lose_descriptors(log)
            with lock:
                pass
            for use in (
                lambda: pylocks.TicketLock(domain=domain),
                lambda: domain.lock("bills"),
                lambda: array[99_999].acquire(),
                lambda: pickle.loads(pickle.dumps(lock)),
                array.close,
            ):
                with suppress(pylocks.PylocksError, OSError):
                    use()
            still_open = all(os.fstat(number).st_ino == os.stat(log).st_ino for number in numbers)
            status = 0 if os.stat(log).st_size == size and still_open else 3
        finally:
            os._exit(status)
    os.close(readable)
    os.close(writable)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert log.read_bytes() == b"a line of a log\n"


def test_who_has_lost_the_descriptor_is_not_taken_for_dead(name: str, tmp_path: Path) -> None:
    """The flock has gone with it, but its threads are seen to live."""
    domain = pylocks.Domain(name)
    lock = domain.lock("orders")
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.dup2(readable, 0)
            os.dup2(writable, 1)
            lock.acquire()
            lose_descriptors(tmp_path / "log")
            os.write(1, b"1")
            signal.pause()
        finally:
            os._exit(0)
    try:
        assert os.read(readable, 1) == b"1"
        domain.close()
        again = pylocks.Domain(name).lock("orders")
        owner = again.owner
        assert owner is not None and (owner.pid, owner.alive) == (pid, True)
        assert again.acquire(timeout=0.01) is False
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(readable)
        os.close(writable)


# ------------------------------------------------------------------ somebody else's


@AS_ROOT
@CREATE
def test_another_users_segment(create: bool, name: str) -> None:
    path = abandoned(name)
    os.chown(path, 54321, 54321)
    before = snapshot(path)
    refused(errors.DomainPermissionError, name, "belongs to user 54321", create=create)
    assert snapshot(path) == before
    with pytest.raises(PermissionError) as caught:
        pylocks.Domain(name, create=create)
    assert caught.value.errno == errno.EACCES


def as_user(uid: int, function: Callable[[], Any]) -> Any:
    """What the function gives to somebody else, in a child."""

    def child() -> Any:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)
        return function()

    return in_child(child)


@AS_ROOT
@CREATE
def test_a_segment_of_somebody_who_keeps_it_closed(create: bool, name: str) -> None:
    path = abandoned(name)
    before = snapshot(path)
    message = as_user(54321, lambda: refused(errors.DomainPermissionError, name, create=create))
    assert "somebody else" in message
    assert snapshot(path) == before


@AS_ROOT
def test_a_segment_that_users_agree_to_share(name: str) -> None:
    with pylocks.Domain(name, mode=0o666) as domain:
        lock = domain.lock("orders")

        def other() -> tuple[Any, ...]:
            shared = pylocks.Domain(name, mode=0o666)
            return shared.uid, shared.lock("orders").acquire(False), shared.lock("bills").acquire(False)

        with lock:
            assert as_user(54321, other) == (domain.uid, False, True)


@CREATE
@pytest.mark.parametrize(("made", "asked"), [(0o600, 0o640), (0o666, 0o600), (0o644, 0o664)])
def test_another_mode(made: int, asked: int, create: bool, name: str) -> None:
    path = abandoned(name, mode=made)
    before = snapshot(path)
    refused(errors.DomainPermissionError, name, f"{made:#o}", f"{asked:#o}", mode=asked, create=create)
    assert snapshot(path) == before


# ------------------------------------------------------------------ there is none


def test_an_unknown_domain_is_not_made_without_create(name: str) -> None:
    refused(errors.UnknownDomainError, name, "create=False", create=False)
    assert not segment_path(name).exists()
    with pytest.raises(FileNotFoundError) as caught:
        pylocks.Domain(name, create=False)
    assert caught.value.errno == errno.ENOENT
