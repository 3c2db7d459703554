"""A domain's name that means something stale, half made, somebody else's, or nothing; and races for it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
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
