"""vcpu_preempted=bpf: who answers under the monitor's name, and who may hear it."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import struct
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from support import monitored
from support.child import in_child
from support.monitored import act_as, new_user, rest, thread_of
from support.wait import until

import pylocks
from pylocks import monitor
from pylocks._core import lib

NEEDS_ROOT = pytest.mark.skipif(bool(monitored.missing()), reason=monitored.missing() or "nothing is missing")


@pytest.fixture
def user() -> int:
    """One that nobody else is."""
    return new_user()


def _listener(user: int) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    made.bind(f"\0pylocks.preempted.{user}")
    made.listen()
    return made


@NEEDS_ROOT
def test_another_users_socket_is_not_believed(user: int) -> None:
    """It is not even asked."""
    readable, writable = os.pipe()

    def squat() -> None:
        with _listener(user) as listener:
            os.write(writable, b"x")
            peer, _ = listener.accept()
            os.write(writable, b"said" if peer.recv(1) else b"hung up")
            rest()

    def look() -> str:
        act_as(user)
        return monitor.found()

    with thread_of(user + 1, squat):
        assert os.read(readable, 1) == b"x"
        assert "another user's process" in in_child(look)
        assert os.read(readable, 100) == b"hung up"
    os.close(readable)
    os.close(writable)


@NEEDS_ROOT
def test_the_marks_are_not_given_to_other_users(user: int) -> None:
    def ask() -> bytes:
        monitored.become(user + 1)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(f"\0pylocks.preempted.{user}")
            said, descriptors, _, _ = socket.recv_fds(asking, 100, 2)
            assert not descriptors
            return said

    with pylocks.PreemptionMonitor(user):
        assert in_child(ask) == b""


@NEEDS_ROOT
def test_what_the_user_is_given_can_only_be_read(user: int) -> None:
    import mmap

    def ask() -> None:
        monitored.become(user)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(f"\0pylocks.preempted.{user}")
            _, descriptors, _, _ = socket.recv_fds(asking, 100, 2)
        for descriptor, size in zip(descriptors, (mmap.PAGESIZE, lib.PLK_MARKS_BYTES), strict=True):
            mmap.mmap(descriptor, size, prot=mmap.PROT_READ).close()
            with pytest.raises(PermissionError):
                mmap.mmap(descriptor, size)
            with pytest.raises(OSError):
                os.ftruncate(descriptor, 0)
        with mmap.mmap(descriptors[0], mmap.PAGESIZE, prot=mmap.PROT_READ) as life:
            # The lock word, its owner and its kind; no pointer of a process that may be root's.
            assert set(life[:-24]) == {0}
            assert struct.unpack("=II", life[-24:-16])[0] != 0

    with pylocks.PreemptionMonitor(user):
        in_child(ask)


def _life(size: int, seals: int) -> int:
    made = os.memfd_create("life", os.MFD_ALLOW_SEALING)
    os.ftruncate(made, size)
    fcntl.fcntl(made, fcntl.F_ADD_SEALS, seals)
    return made


def _greeting(user: int, magic: int | None = None, marks: int | None = None) -> bytes:
    return struct.pack(
        "=QII",
        lib.PLK_MARKS_MAGIC if magic is None else magic,
        lib.PLK_MARKS if marks is None else marks,
        user,
    )


PAGE = os.sysconf("SC_PAGESIZE")
SHRINK = fcntl.F_SEAL_SHRINK
IMPOSTORS: dict[str, Callable[[int], tuple[bytes, list[int]]]] = {
    "another magic": lambda user: (_greeting(user, magic=1), [_life(PAGE, SHRINK), _life(2**18, SHRINK)]),
    "other marks": lambda user: (_greeting(user, marks=8), [_life(PAGE, SHRINK), _life(2**18, SHRINK)]),
    "of somebody else": lambda user: (_greeting(user + 1), [_life(PAGE, SHRINK), _life(2**18, SHRINK)]),
    "cut short": lambda user: (_greeting(user)[:-1], [_life(PAGE, SHRINK), _life(2**18, SHRINK)]),
    "no descriptors": lambda user: (_greeting(user), []),
    "one descriptor": lambda user: (_greeting(user), [_life(PAGE, SHRINK)]),
    "five descriptors": lambda user: (_greeting(user), [_life(PAGE, SHRINK) for _ in range(5)]),
    "a life word that is too short": lambda user: (_greeting(user), [_life(8, SHRINK), _life(2**18, SHRINK)]),
    "one that could shrink": lambda user: (_greeting(user), [_life(PAGE, 0), _life(2**18, SHRINK)]),
    "marks in a file": lambda user: (_greeting(user), [_life(PAGE, SHRINK), _life(2**18, 0)]),
}


@NEEDS_ROOT
@pytest.mark.parametrize("what", IMPOSTORS)
def test_an_answer_that_is_none_is_not_used(what: str, user: int) -> None:
    """Of the same user's processes, such as one of another version; no descriptor of it is kept."""

    def look() -> tuple[str, set[str], set[str]]:
        with ExitStack() as left:
            monitored.become(user)
            listener = left.enter_context(_listener(user))
            before = set(os.listdir("/proc/self/fd"))
            assert "has been asked" in monitor.found()
            peer, _ = listener.accept()
            text, descriptors = IMPOSTORS[what](user)
            socket.send_fds(peer, [text], descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
            peer.close()
            return monitor.found(), before, set(os.listdir("/proc/self/fd"))

    said, before, after = in_child(look)
    assert "another pylocks version" in said and monitored.AS_SAME_CPU in said
    assert after == before


@NEEDS_ROOT
def test_nobody_waits_for_a_monitor_that_does_not_answer(user: int) -> None:
    def look() -> None:
        monitored.become(user)
        with _listener(user):
            assert "has not answered yet" in monitor.found()
            until(lambda: "no PreemptionMonitor of this user runs" in monitor.found(), "it to be given up")

    in_child(look)


def _sockets() -> set[int]:
    return {number for number in map(int, os.listdir("/proc/self/fd")) if _is_socket(number)}


def _is_socket(number: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(number).st_mode)
    except OSError:
        return False  # the one through which the listing was read


@NEEDS_ROOT
def test_a_socket_that_the_program_closed_is_not_read(user: int) -> None:
    """Its number may be another socket's by then, whose messages are not ours."""

    def look() -> tuple[str, bytes]:
        monitored.become(user)
        with _listener(user):
            before = _sockets()
            assert "has been asked" in monitor.found()
            (number,) = _sockets() - before
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            os.dup2(theirs.fileno(), number)
            ours.send(_greeting(user))
            lib.plk_monitor_look()
            return monitor.found(), socket.socket(fileno=number).recv(100, socket.MSG_DONTWAIT)

    said, message = in_child(look)
    assert monitored.AS_SAME_CPU in said or "asked" in said  # anew
    assert message == _greeting(user)
