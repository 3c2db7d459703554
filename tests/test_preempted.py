"""vcpu_preempted=bpf: what a PreemptionMonitor marks, who believes it, and for how long."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support import monitored, run
from support.child import in_child
from support.monitored import act_as, find, is_in, is_out, new_user, rest, spin, thread_of
from support.wait import until

import pylocks
from pylocks import monitor
from pylocks._core import lib

NEEDS_ROOT = pytest.mark.skipif(bool(monitored.missing()), reason=monitored.missing() or "nothing is missing")


@pytest.fixture
def user() -> int:
    """One that nobody else is."""
    return new_user()


# ------------------------------------------------------------------ the marks


@NEEDS_ROOT
def test_a_thread_that_does_not_run_is_marked(user: int) -> None:
    """Stopped, asleep; and not any more when it runs again."""

    def watch() -> None:
        act_as(user)
        find()
        with thread_of(user, rest) as asleep, thread_of(user, spin) as busy:
            is_out(asleep)
            is_in(busy)
            for _ in range(20):
                os.kill(busy, signal.SIGSTOP)
                os.waitpid(busy, os.WUNTRACED)
                is_out(busy)
                os.kill(busy, signal.SIGCONT)
                is_in(busy)
            assert lib.plk_thread_out(asleep) == 1
            assert lib.plk_thread_out(0) == 0

    with pylocks.PreemptionMonitor(user):
        in_child(watch)


@NEEDS_ROOT
def test_a_preempted_thread_is_marked_until_it_runs(user: int) -> None:
    """Two that never sleep share a CPU: each is seen in and out, again and again."""
    cpu = min(os.sched_getaffinity(0))

    def watch() -> None:
        act_as(user)
        find()
        with thread_of(user, spin, cpu) as one, thread_of(user, spin, cpu) as other:
            for _ in range(2):
                for pid in (one, other):
                    is_in(pid)
                    is_out(pid)

    with pylocks.PreemptionMonitor(user):
        in_child(watch)


@NEEDS_ROOT
def test_only_the_users_threads_are_marked(user: int) -> None:
    def watch() -> None:
        act_as(user)
        find()
        with thread_of(new_user(), rest) as others, thread_of(user, rest) as own:
            is_out(own)
            until(lambda: _state(others) == "S", "the other user's thread to sleep")
            assert lib.plk_thread_out(others) == 0

    with pylocks.PreemptionMonitor(user):
        in_child(watch)


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@NEEDS_ROOT
def test_a_forked_child_has_the_marks(user: int) -> None:
    def watch() -> None:
        act_as(user)
        find()
        with thread_of(user, rest) as asleep:
            is_out(asleep)
            assert in_child(lambda: lib.plk_thread_out(asleep)) == 1

    with pylocks.PreemptionMonitor(user):
        in_child(watch)


# --------------------------------------------------------- its life, and its death

SERVE = """
import os, pylocks, sys
monitor = pylocks.PreemptionMonitor(int(sys.argv[1]))
monitor.start()
child = os.fork() if sys.argv[2:] == ["fork"] else None
if child == 0:
    assert not monitor.running
    monitor.stop()
os.write(1, b"ready\\n")  # in one piece: two may say so at once
sys.stdin.read()
"""


@NEEDS_ROOT
def test_marks_of_a_killed_monitor_mislead_nobody(user: int) -> None:
    """At once: nobody has to wait until they are too old.  And those of the next one count again."""

    def watch() -> None:
        with ExitStack() as asleep:
            with run.Interactive("-c", SERVE, str(user)) as server:
                assert server.line()
                act_as(user)
                find()
                pid = asleep.enter_context(thread_of(user, rest))
                is_out(pid)
                server.kill()
                assert lib.plk_thread_out(pid) == -1
            assert "has ended" in monitor.found() and monitored.AS_SAME_CPU in monitor.found()
            os.seteuid(0)
            with run.Interactive("-c", SERVE, str(user)) as server:
                assert server.line()
                act_as(user)
                find()
                busy = asleep.enter_context(thread_of(user, spin))
                is_in(busy)
                assert lib.plk_thread_out(pid) == 0  # that one was asleep before: nothing is known of it
                is_out(asleep.enter_context(thread_of(user, rest)))
                os.seteuid(0)

    in_child(watch)


@NEEDS_ROOT
def test_a_stopped_monitor_is_believed(user: int) -> None:
    """Rightly: it is the kernel that marks.  One that is short of CPU time does no harm either."""

    def watch() -> None:
        with run.Interactive("-c", SERVE, str(user)) as server:
            assert server.line()
            act_as(user)
            find()
            os.kill(server.pid, signal.SIGSTOP)
            with thread_of(user, spin) as busy:
                is_in(busy)
                os.kill(busy, signal.SIGSTOP)
                is_out(busy)
            os.seteuid(0)

    in_child(watch)


@NEEDS_ROOT
def test_a_forked_child_of_the_monitors_process_keeps_nothing(user: int) -> None:
    """Neither its name nor its program."""
    with run.Interactive("-c", SERVE, str(user), "fork") as server:
        assert server.line() and server.line()
        server.kill()  # the child lives
        with pylocks.PreemptionMonitor(user) as again:
            assert again.running


@NEEDS_ROOT
def test_start_and_stop(user: int) -> None:
    made = pylocks.PreemptionMonitor(user)
    made.stop()
    assert not made.running and "stopped" in repr(made) and str(user) in repr(made)
    for _ in range(3):
        with made:
            assert made.running and "running" in repr(made)
            with pytest.raises(pylocks.MonitorError, match="can't be started again"):
                made.start()
            with pytest.raises(
                pylocks.MonitorError, match=f"user {user} has a monitor already.*preempted.{user}"
            ):
                pylocks.PreemptionMonitor(user).start()
        assert not made.running

    def state() -> int:
        act_as(user)
        return int(lib.plk_monitor_look())

    assert in_child(state) == lib.PLK_MONITOR_NONE


# ------------------------------------------------------------------- refusals


def test_without_the_privilege_the_error_says_what_is_missing(user: int) -> None:
    def start() -> str:
        if os.geteuid() == 0:
            monitored.become(user)
        with pytest.raises(pylocks.MonitorPermissionError) as raised:
            pylocks.PreemptionMonitor().start()
        assert isinstance(raised.value, PermissionError)
        return str(raised.value)

    if os.geteuid() == 0 and monitored.missing():
        pytest.skip(monitored.missing())
    said = in_child(start)
    assert "lacks CAP_PERFMON and CAP_BPF" in said and "root" in said


@NEEDS_ROOT
def test_for_another_user_it_must_be_root(user: int) -> None:
    def start() -> str:
        monitored.become(user)
        with pytest.raises(pylocks.MonitorPermissionError) as raised:
            pylocks.PreemptionMonitor(user + 1).start()
        return str(raised.value)

    assert f"user {user + 1} must run as root or as that user, not as user {user}" in in_child(start)


@pytest.mark.parametrize("wrong", [-1, 2**32 - 1, "root", 1.5])
def test_what_is_no_user_id_is_refused(wrong: Any) -> None:
    with pytest.raises(ValueError, match="user is a numeric user id"):
        pylocks.PreemptionMonitor(wrong)


NAMESPACE = """
import pylocks
try:
    pylocks.PreemptionMonitor().start()
except pylocks.MonitorError as error:
    print(error)
pylocks.Domain()
print(next(op.reason for op in pylocks.ops() if op.op == "vcpu_preempted"))
"""


def test_in_a_pid_namespace_both_sides_say_so() -> None:
    unshare: tuple[str, ...] = ("unshare", "--pid", "--fork", "--kill-child")
    if os.geteuid() != 0:
        unshare += ("--user", "--map-current-user")
    try:
        if run.python("-c", "", before=unshare).status != 0:
            pytest.skip("no namespace can be made here")
    except FileNotFoundError:
        pytest.skip("there is no unshare(1) here")
    environment = run.settings(PYLOCKS_OPS="vcpu_preempted=bpf")
    refusal, reason = (
        run.python("-c", NAMESPACE, environment=environment, before=unshare).check().splitlines()
    )
    assert "pid namespace" in refusal and "outside of the container" in refusal
    assert "pid namespace" in reason and monitored.AS_SAME_CPU in reason


# ------------------------------------------------------------------ the op itself

PLAY = """
import os, signal, sys
import pylocks
from pylocks import monitor
from pylocks._core import lib
from support.monitored import act_as, find, rest, thread_of
from support.wait import until

user = int(sys.argv[1])
domain = pylocks.Domain()
lock = pylocks.TicketLock(domain=domain)
with lock:
    pass
if os.geteuid() == 0:  # not earlier: Python itself may lie where only root can read
    act_as(user)
lib.plk_segment_spin(domain._segment, 50, 8)  # also where there is one CPU
ready = os.pipe()

def reason():
    return next(op.reason for op in pylocks.ops() if op.op == "vcpu_preempted")

def skipped(attempts=3):
    before = domain.stats().preempted
    for _ in range(attempts):
        assert not lock.acquire(timeout=0.0003)
    return domain.stats().preempted - before

def hold():
    lock.acquire()
    os.write(ready[1], b"x")
    rest()
"""


def play(script: str, user: int, choice: str) -> run.Done:
    environment = run.settings(PYLOCKS_OPS=f"vcpu_preempted={choice},lock_event=counters")
    return run.python("-c", PLAY + script, str(user), environment=environment)


BEHIND_ONE_THAT_SLEEPS = """
with thread_of(user, hold) as holder:
    os.read(ready[0], 1)
    find()
    until(lambda: lib.plk_thread_out(holder) == 1, "the holder to sleep")
    print(reason())
    print(skipped(), flush=True)
    os.seteuid(0)
"""


@NEEDS_ROOT
@pytest.mark.parametrize(("choice", "times"), [("bpf", 3), ("off", 0)])
def test_nobody_spins_for_a_holder_that_does_not_run(choice: str, times: int, user: int) -> None:
    with pylocks.PreemptionMonitor(user):
        reason, skipped = play(BEHIND_ONE_THAT_SLEEPS, user, choice).check().splitlines()
    assert int(skipped) == times
    assert ("with the marks of a PreemptionMonitor" in reason) == (choice == "bpf")


LATE = """
monitor = pylocks.PreemptionMonitor(user)
with thread_of(user, hold) as holder:
    os.read(ready[0], 1)
    print(reason())
    assert skipped() == 0
    os.seteuid(0)
    monitor.start()
    act_as(user)
    # Its last switch was before the monitor's time.
    os.kill(holder, signal.SIGSTOP)
    os.kill(holder, signal.SIGCONT)
    until(lambda: skipped(20) == 20, "a waiter to find the monitor")
    print(reason())
    os.seteuid(0)
    monitor.stop()
    act_as(user)
    assert skipped() == 0
    print(reason())
    os.seteuid(0)
"""


@NEEDS_ROOT
def test_waiters_find_a_monitor_that_comes_later(user: int) -> None:
    before, during, after = play(LATE, user, "bpf").check().splitlines()
    assert "no PreemptionMonitor of this user runs" in before and monitored.AS_SAME_CPU in before
    assert "with the marks of a PreemptionMonitor" in during
    assert "has ended" in after and monitored.AS_SAME_CPU in after


ALONE_ON_A_CPU = """
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
go = os.pipe()

def wait_and_hold():
    assert not lock.acquire(timeout=0.0003)  # leaves word of its CPU
    os.write(ready[1], b"x")
    os.read(go[0], 1)
    hold()

with lock, thread_of(os.geteuid(), wait_and_hold):
    os.read(ready[0], 1)
    lock.release()
    os.write(go[1], b"x")
    os.read(ready[0], 1)
    print(skipped(1), flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize(("choice", "times"), [("bpf", 1), ("same_cpu", 1), ("off", 0)])
def test_without_a_monitor_it_is_as_same_cpu(choice: str, times: int, user: int) -> None:
    done = play(ALONE_ON_A_CPU, user, choice)
    assert (done.status, done.err, done.out) == (0, "", f"{times}\n")
