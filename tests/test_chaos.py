"""Chaos: runs that pass, locks that must not, and its manners."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.stress import result_of_row
from support.wait import until

from pylocks.stress import results
from pylocks.stress.chaos import judge
from pylocks.stress.chaos.plan import ChaosPlan

COMMAND = [sys.executable, "-m", "pylocks", "stress", "--chaos", "--no-progress"]
SMALL = ("--processes", "6", "--locks", "20", "--kills", "60", "--seconds", "3")


def chaos(path: Path, *options: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """A whole run and its results."""
    done = subprocess.run(
        [*COMMAND, *options, "--json", str(path)], capture_output=True, text=True, timeout=100, check=False
    )
    assert path.exists(), done.stderr
    return done, json.loads(path.read_text())


# ---------------------------------------------------------------- whole runs


@pytest.mark.parametrize(
    ("slow_path", "policy"), [("futex", "fifo"), ("yield", "fifo"), ("futex", "bounded")]
)
def test_sound_locks_survive(tmp_path: Path, slow_path: str, policy: str) -> None:
    done, result = chaos(
        tmp_path / "o.json", *SMALL, "--slow-path", slow_path, "--policy", policy, "--seed", "5"
    )
    assert done.returncode == 0, done.stdout
    assert result["verdict"] == "pass" and result["violations_by_kind"] == {}
    assert "PASS" in done.stdout and "seed 5" in done.stdout and "killed" in done.stdout
    (row,) = result["rows"]
    figures = row["chaos"]
    assert row["ended"] == "deadline" and row["acquisitions"] > 0
    assert figures["kills"] >= 60 and sum(figures["kills_per_seat"]) == figures["kills"]
    assert figures["kills_waiting"] > 0 and figures["stops"] > 0
    assert figures["timeouts"] > 0 and 0 < figures["interrupts"] <= figures["interrupts_sent"]
    assert figures["replaced_by_fork"] + figures["replaced_by_spawn"] == figures["processes_in_all"]
    assert figures["processes_in_all"] == 6 + figures["kills"], "every victim was replaced, nobody else"
    assert figures["replaced_by_spawn"] > 0
    assert figures["processes_in_all"] > figures["vcpu_slots"], "slots were used again"
    assert figures["stalls"] > 0 and 0 <= figures["stall_ns"]["p50"] <= figures["stall_ns"]["max"]
    assert figures["stall_ns"]["max"] <= figures["stall_from_kill_ns"]["max"]
    assert figures["stall_without_cpu_wait_ns"]["max"] <= figures["stall_ns"]["max"]
    after = figures["after"]
    assert after["tombstones"] == after["tombstones_counted"] == after["parked"] == 0
    assert after["slots_of_the_dead"] == 0 and after["not_free"] == []


def test_a_broken_lock_is_caught_and_its_seed_replays(tmp_path: Path) -> None:
    # Long sections: those who are let in together meet.
    options = (*SMALL, "--locks", "2", "--cs", "1ms", "--slow-path", "busted", "--seed", "9")
    done, result = chaos(tmp_path / "a.json", *options)
    assert done.returncode == 1 and result["verdict"] == "fail"
    assert result["violations_by_kind"]["occupied"] > 0 and "FAIL" in done.stdout
    assert result["rows"][0]["ended"] == "violated"
    command = result["options"]["command"]
    assert command in " ".join(done.stdout.split()) and "--chaos" in command and "--seed 9" in command

    path = tmp_path / "b.json"
    again = subprocess.run(
        [sys.executable, "-m", *command.split(), "--no-progress", "--json", str(path)],
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert again.returncode == 1
    first, second = (each["rows"][0]["chaos"]["decisions"] for each in (result, json.loads(path.read_text())))
    common = min(len(first), len(second))
    assert common > 0 and first[:common] == second[:common]


def test_a_row_that_ends_before_its_kills_is_incomplete() -> None:
    row = {"ended": "short", "violations_by_kind": {}}
    assert results.verdict([row], 1) == "incomplete"


#: A row of chaos, in a process of its own, whose locks are not what they say.
LIAR = """
import os, random, sys, time
from pylocks.stress.chaos import decisions, row, worker

class Liar:
    def __init__(self, lock):
        self._lock = lock
    def __getattr__(self, name):
        return getattr(self._lock, name)
    def __enter__(self):
        return self._lock.__enter__()
    def __exit__(self, *about):
        return self._lock.__exit__(*about)
    {lie}

true = worker.handles
worker.handles = lambda domain, locks: [Liar(lock) for lock in true(domain, locks)]
decisions.SPAWNED = 0.0
row.PATIENCE = 1.0
row.AUDIT = 2.0
parent = os.getpid()
sys.exit(row.main())
"""


def row_with(lie: str, **changes: Any) -> dict[str, Any]:
    """The result of a row of chaos with locks that lie so."""
    plan = ChaosPlan(
        **{
            "parent": os.getpid(),
            "slow_path": "futex",
            "policy": "fifo",
            "overcommit": 2.0,
            "processes": 4,
            "locks": 4,
            "seconds": 2.0,
            "acquisitions": None,
            "cs_ns": 0,
            "outside_ns": 0,
            "cs_loops": 400_000,
            "outside_loops": 10_000,
            "seed": 3,
            "kills": 30,
            **changes,
        }
    )
    return result_of_row(LIAR.replace("{lie}", lie), plan)


def test_locks_that_tell_the_truth_pass_in_the_same_row() -> None:
    row = row_with("pass")
    assert row["violations_by_kind"] == {}, row["findings"]
    assert row["chaos"]["kills_inside"] > 0 and row["chaos"]["owner_deaths_reported"] > 0


def test_a_death_of_which_nobody_is_told_is_silent() -> None:
    row = row_with("owner_died = False", seconds=4.0)
    assert row["violations_by_kind"]["silent_death"] > 0
    finding = next(each for each in row["findings"] if each["kind"] == "silent_death")
    assert finding["got"] != finding["expected"] and "killed inside" in finding["text"]


def test_a_death_that_nobody_died_is_a_false_alarm() -> None:
    lie = "owner_died = property(lambda self: self._lock.owner_died or random.random() < 0.2)"
    row = row_with(lie, kills=1)
    assert row["violations_by_kind"]["false_alarm"] > 0
    assert row["violations_by_kind"]["unwarned"] > 0


def test_a_lock_that_lets_in_anybody_is_occupied() -> None:
    lie = "__enter__ = lambda self: True\n    __exit__ = lambda self, *about: None"
    row = row_with(lie)
    assert {"occupied", "ticket_order"} <= set(row["violations_by_kind"])


def test_a_lock_that_is_never_granted_is_stuck() -> None:
    lie = "__enter__ = lambda self: time.sleep(3600)\n    acquire = lambda self, **how: time.sleep(3600)"
    row = row_with(lie, kills=2, seconds=30.0)
    assert row["violations_by_kind"]["stuck"] > 0
    finding = next(each for each in row["findings"] if each["kind"] == "stuck")
    assert finding["waited_ns"] > 1e9 and {"head", "tail", "vcpus"} <= set(finding)


def test_a_timeout_before_its_time_is_found() -> None:
    lie = "acquire = lambda self, blocking=True, timeout=None: blocking and timeout is None"
    row = row_with(lie, kills=0)
    assert row["violations_by_kind"]["early_timeout"] > 0


def test_a_worker_that_ends_by_itself_is_found() -> None:
    row = row_with("__enter__ = lambda self: os.abort() if os.getpid() != parent else None", kills=0)
    assert row["violations_by_kind"]["worker_died"] > 0
    assert f"signal {int(signal.SIGABRT)}" in json.dumps(row["findings"])


def test_a_ticket_that_nobody_gave_up_is_missed() -> None:
    # Takes the lock, and gives it back, one time more than it says; and gives up none.
    lie = (
        "decisions.HOW = (('wait', 1.0),)\n"
        "    def __enter__(self):\n"
        "        self._lock.acquire()\n"
        "        self._lock.release()\n"
        "        return self._lock.__enter__()"
    )
    row = row_with(lie, kills=0)
    assert row["violations_by_kind"]["ticket_skipped"] > 0


def test_a_lock_that_is_not_to_be_had_in_the_end_is_not_free() -> None:
    lie = (
        "def within(self, seconds):\n"
        "        if os.getpid() == parent and self._lock.index == 2:\n"
        "            raise TimeoutError\n"
        "        return self._lock.within(seconds)"
    )
    row = row_with(lie, kills=0)
    assert row["violations_by_kind"] == {"not_free": 1, "early_timeout": 1}
    assert row["chaos"]["after"]["refused"]["lock"] == 2


def test_slots_that_stay_with_the_dead_are_lost() -> None:
    row = row_with("import pylocks; pylocks.Domain.recover = lambda self: 0", kills=0)
    assert set(row["violations_by_kind"]) == {"slot_lost"}


@pytest.mark.parametrize(
    ("after", "kinds"),
    [
        ({}, []),
        ({"tombstones": 1}, ["left_behind"]),
        ({"tombstones_counted": 1}, ["left_behind"]),
        ({"parked": 2}, ["left_behind"]),
        ({"slots_of_the_dead": 2}, ["slot_lost", "slot_lost"]),
        ({"not_free": [7]}, ["not_free"]),
    ],
)
def test_what_is_left_in_the_end_is_a_violation(after: dict[str, Any], kinds: list[str]) -> None:
    clean = {"tombstones": 0, "tombstones_counted": 0, "parked": 0, "slots_of_the_dead": 0, "not_free": []}
    assert [kind for kind, _ in judge.leftovers({**clean, **after})] == kinds
    assert judge.leftovers({}) == [], "nobody looked"


# ---------------------------------------------------------------- manners


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--overcommit", "2"), "use --processes"),
        (("--acquisitions", "5"), "no meaning with --chaos"),
        (("--quick",), "no meaning with --chaos"),
        (("--html", "x.html"), "use --json"),
        (("--slow-path", "mp"), "stays locked"),
        (("--kills", "-1"), "is not between 0 and"),
    ],
)
def test_bad_options_are_refused(
    options: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from pylocks.cli import main

    with pytest.raises(SystemExit) as stopped:
        main(["stress", "--chaos", *options])
    assert stopped.value.code == 2 and complaint in capsys.readouterr().err


def test_kills_are_for_chaos(capsys: pytest.CaptureFixture[str]) -> None:
    from pylocks.cli import main

    with pytest.raises(SystemExit):
        main(["stress", "--kills", "5"])
    assert "--kills is for --chaos" in capsys.readouterr().err


def test_the_help_says_what_a_seed_does_not_decide() -> None:
    done = subprocess.run([*COMMAND[:-1], "--help"], capture_output=True, text=True, check=True, timeout=60)
    said = " ".join(done.stdout.split())
    assert "the machine's timing" in said and "--processes 16 --locks 1000" in said


@contextlib.contextmanager
def raging() -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """The command in the middle of a row, and its descendants."""
    process = subprocess.Popen(
        [*COMMAND, "--processes", "6", "--locks", "20", "--kills", "900", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        me = psutil.Process(process.pid)
        until(lambda: len(me.children(recursive=True)) >= 1 + 6, "workers", 30)
        time.sleep(0.5)
        yield process, me.children()
    finally:
        process.kill()
        process.communicate()


def test_ctrl_c_shows_what_there_is_and_leaves_nobody() -> None:
    with raging() as (process, (row,)):
        group = os.getpgid(row.pid)
        process.send_signal(signal.SIGINT)
        shown, _ = process.communicate(timeout=30)
        assert process.returncode == 130
        assert not members(group)
    assert "cut short" in shown and "INCOMPLETE" in shown and "Traceback" not in shown


def members(group: int) -> list[int]:
    """Processes of that group that have not ended."""
    found = []
    for process in psutil.process_iter(["pid", "status"]):
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


@pytest.mark.parametrize("victim", ["command", "row"])
def test_workers_die_with_whoever_is_killed(victim: str) -> None:
    with raging() as (process, (row,)):
        group = os.getpgid(row.pid)
        assert len(members(group)) > 4
        (psutil.Process(process.pid) if victim == "command" else row).kill()
        until(lambda: not members(group), "all workers to die", 20)
        shown, _ = process.communicate(timeout=30)
    if victim == "row":
        assert process.returncode == 1 and "row_failed" in shown
