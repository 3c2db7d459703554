"""pylocks deadlocks: who waits for whom, of programs that know nothing of each other."""

from __future__ import annotations

import fcntl
import json
import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
from conftest import segment_path
from support import run
from support.wait import until

import pylocks
from pylocks.cli import main
from pylocks.observe import attaching
from pylocks.observe.model import Snapshot
from pylocks.observe.places import Place

PROGRAM = """
import sys, pylocks
name, first, second, detect = sys.argv[1:]
domain = pylocks.Domain(name, detect_deadlocks=detect == "True")
with domain.lock(first):
    print("has it", flush=True)
    sys.stdin.readline()
    try:
        with domain.lock(second):
            print("both", flush=True)
    except pylocks.DeadlockError as error:
        print(f"told: {error}", flush=True)
"""


class Programs:
    """Two unrelated programs, each with the lock that the other one wants."""

    def __init__(self, domain: str, detect: bool = False) -> None:
        self.domain = domain
        self._stack = ExitStack()
        self.programs = [
            self._stack.enter_context(run.Interactive("-c", PROGRAM, domain, *pair, str(detect)))
            for pair in (("left", "right"), ("right", "left"))
        ]
        assert [program.line() for program in self.programs] == ["has it", "has it"]

    def __enter__(self) -> Programs:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def clash(self) -> None:
        """Let each want the other's."""
        for program in self.programs:
            program.say("")

    def stand(self) -> None:
        """The same; return when both wait."""
        self.clash()
        with pylocks.Domain(self.domain, create=False) as domain:
            until(lambda: sum(v.waiting_since is not None for v in domain.vcpus()) == 2, "both to wait")

    @property
    def pids(self) -> set[int]:
        return {program.pid for program in self.programs}


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs `pylocks deadlocks`: (exit status, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        status = main(["deadlocks", *arguments])
        return status, *capfd.readouterr()

    return call


Command = Callable[..., tuple[int, str, str]]


def patiently(command: Command, *arguments: str) -> tuple[int, str, str]:
    """The same as soon as there is a cycle: a thread that looks at its signals is not seen to wait."""
    last: list[tuple[int, str, str]] = []

    def look() -> bool:
        last[:] = [command(*arguments)]
        return last[0][0] == 1

    until(look, "a cycle to be found")
    return last[0]


def test_two_unrelated_programs(name: str, command: Command) -> None:
    with Programs(name) as both:
        assert command(name) == (0, "no deadlock\n", "")
        assert command(name, "--json") == (0, "[]\n", "")
        both.stand()
        status, out, err = patiently(command, name)
        assert (status, err) == (1, "")
        assert out.startswith(f"deadlock in domain {name!r}: 2 threads wait for each other\n")
        for word in (*both.pids, "holds 'left'", "holds 'right'", "waits for 'left'", "waits for 'right'"):
            assert str(word) in out
        status, out, err = patiently(command, name, "--json")
        (cycle,) = json.loads(out)
        assert (status, err, cycle["domain"]) == (1, "", name)
        members = {member["pid"]: member for member in cycle["members"]}
        left, right = both.programs
        assert (members[left.pid]["holds"], members[left.pid]["wants"]) == ("left", "right")
        assert (members[right.pid]["holds"], members[right.pid]["wants"]) == ("right", "left")
        assert all(member["waiting_s"] >= 0 for member in members.values())
        until(lambda: [each["domain"] for each in json.loads(command("--json")[1])].count(name), "ours, too")
        left.kill()
        until(lambda: command(name) == (0, "no deadlock\n", ""), "the cycle to open")
        assert right.line() == "both"


def test_one_of_two_unrelated_programs_is_told_and_the_other_goes_on(name: str, command: Command) -> None:
    with Programs(name, detect=True) as both:
        both.clash()
        said = {program.pid: program.line() for program in both.programs}
        (told,) = [pid for pid, line in said.items() if line.startswith("told: ")]
        assert sorted(line[:4] for line in said.values()) == ["both", "told"]
        for word in (*both.pids, "'left'", "'right'", repr(name)):
            assert str(word) in said[told]
        assert [program.wait() for program in both.programs] == [0, 0]
        assert command(name)[0] == 0


def test_watching_shows_each_cycle_once(name: str) -> None:
    with (
        Programs(name) as both,
        run.Interactive("-m", "pylocks", "deadlocks", name, "--watch", "--json") as watch,
    ):
        both.clash()
        cycle: dict[str, Any] = json.loads(watch.line())
        assert {member["pid"] for member in cycle["members"]} == both.pids
        os.kill(watch.pid, signal.SIGINT)
        assert watch.line() == ""
        assert watch.wait() == 1


def test_watching_what_never_locks(name: str, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 9:
            raise KeyboardInterrupt

    monkeypatch.setattr("pylocks.deadlocks.command.pause", pause)
    with Programs(name) as both:
        assert both.pids
        assert command(name, "--watch") == (0, "", "")
    assert len(pauses) == 9 and all(0 < seconds < 1 for seconds in pauses)


def test_what_can_not_be_looked_at(name: str, command: Command) -> None:
    status, out, err = command(name)
    assert (status, out) == (2, "") and name in err and err.startswith("pylocks deadlocks: ")
    status, out, err = command("a/b")
    assert (status, out) == (2, "") and "'a/b'" in err
    segment_path(name).write_bytes(b"something else" * 1000)
    status, out, err = command(name)
    assert (status, out) == (2, "") and "not a pylocks segment" in err
    assert command()[0] in (0, 1)  # others are looked at all the same


def test_a_domain_that_nobody_uses_is_left_as_it_is(name: str, command: Command) -> None:
    with pylocks.Domain(name) as domain:
        lock = domain.lock("one")
        run.python("-c", DIES_HOLDING, name)
        assert lock.waiters == 0
    before = segment_path(name).read_bytes()
    assert command(name) == (0, "no deadlock\n", "")
    assert segment_path(name).read_bytes() == before
    with pytest.warns(pylocks.OwnerDiedWarning):  # what a reset would have told us
        pylocks.Domain(name).close()


DIES_HOLDING = """
import os, sys, pylocks
pylocks.Domain(sys.argv[1]).lock("one").acquire()
os._exit(0)
"""


NAMELESS = """
import os, sys, threading, pylocks
domain = pylocks.Domain()
left, right = pylocks.TicketLock(domain=domain), pylocks.TicketLock(domain=domain)
left.acquire()
ready = threading.Event()
def other():
    right.acquire()
    ready.set()
    left.acquire()
threading.Thread(target=other, daemon=True).start()
ready.wait()
print(domain.uid.hex(), flush=True)
right.acquire()
"""


def test_a_domain_without_a_name(command: Command) -> None:
    """Found among all, and by the beginning of its uid, as pylocks ls shows it."""
    with run.Interactive("-c", NAMELESS) as program:
        label = f"@{program.line()[:8]}"
        status, out, err = patiently(command, label)
        assert (status, err) == (1, "") and f"deadlock in domain {label!r}: 2 threads" in out
        assert f"process {program.pid}" in out
        until(lambda: label in [each["domain"] for each in json.loads(command("--json")[1])], "ours, too")
    status, out, err = command(label)
    assert (status, out) == (
        2,
        "",
    ) and f"no living process of this user shows an anonymous domain {label}" in err


def test_what_is_open_here_stays_open(command: Command) -> None:
    with pylocks.Domain() as domain:
        lock = domain.lock("orders")
        lock.acquire()
        assert command(f"@{domain.uid.hex()[:8]}") == (0, "no deadlock\n", "")
        assert lock.locked() and not domain.closed
        lock.release()


HOLDER = """
import sys, pylocks
held = pylocks.Domain(sys.argv[1]).lock("orders")
held.acquire()
print("has it", flush=True)
sys.stdin.readline()
"""


def test_who_looks_while_the_last_user_dies_resets_nothing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look whether anybody is there and the attaching."""
    with run.Interactive("-c", HOLDER, name) as holder:
        assert holder.line() == "has it"
        look = attaching.snapshot

        def last_look(place: Place) -> Snapshot:
            found = look(place)
            holder.kill()
            return found

        monkeypatch.setattr(attaching, "snapshot", last_look)
        with attaching.attached(attaching.named(name)):  # an OwnerDiedWarning would be an error here
            pass
    with pytest.warns(pylocks.OwnerDiedWarning), pylocks.Domain(name) as domain, domain.lock("orders"):
        pass


def test_what_is_being_made_is_left_alone(name: str) -> None:
    pylocks.Domain(name).close()
    with segment_path(name).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with (
            pytest.raises(pylocks.DomainError, match="look again"),
            attaching.attached(attaching.named(name)),
        ):
            pass
