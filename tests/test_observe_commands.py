"""pylocks ls, rm, top, inspect and doctor: what they print, what they refuse, and with which exit status."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest
from conftest import segment_path
from support import header, run
from support.segments import abandoned
from support.tenants import Tenant, queue
from support.wait import until

import pylocks
from pylocks import cli, errors
from pylocks.observe import checks, snapshot, stacks, survey

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests have abandoned for a moment is not for these to prune."""
    ours = f"test-{os.getpid()}-"
    every = survey.named_places
    monkeypatch.setattr(
        survey, "named_places", lambda: [place for place in every() if (place.name or "").startswith(ours)]
    )


def said(capsys: Capture, *words: str, status: int = 0) -> str:
    """What the command prints; on standard error if it fails."""
    assert cli.main(words) == status
    out, err = capsys.readouterr()
    assert (out if status else err) == ""
    return str(err if status else out)


def told(capsys: Capture, *words: str) -> Any:
    return json.loads(said(capsys, *words, "--json"))


# ------------------------------------------------------------------ ls and rm


def test_ls_lists_named_and_anonymous_ones(name: str, capsys: Capture) -> None:
    with pylocks.Domain(name) as named, pylocks.Domain() as anonymous, named.lock("orders"):
        lines = {line.split()[0]: line.split() for line in said(capsys, "ls").splitlines()}
        assert lines[name][1:7] == ["in", "use", "1", "1", "0", "1"]
        assert f"@{anonymous.uid.hex()[:8]}" in lines
        domains = {found["label"]: found for found in told(capsys, "ls")["domains"]}
        assert domains[name]["creator_pid"] == os.getpid()
    assert [name, "abandoned"] in [line.split()[:2] for line in said(capsys, "ls").splitlines()]


def test_prune_removes_what_is_dead_and_that_alone(fresh_name: Any, capsys: Capture) -> None:
    kept, dead, foreign, old, cut = (fresh_name() for _ in range(5))
    segment_path(foreign).write_bytes(b"somebody else's" * 100)
    header.write(abandoned(old), 1, "abi")
    os.truncate(abandoned(cut), 5000)
    abandoned(dead)
    with pylocks.Domain(kept):
        out = said(capsys, "ls", "--prune")
    assert f"removed {dead}\n" in out and f"removed {cut}\n" in out
    assert [segment_path(n).exists() for n in (kept, dead, foreign, old, cut)] == [
        True,
        False,
        True,
        True,
        False,
    ]
    assert f"removed {kept}\n" in said(capsys, "ls", "--prune")


def test_whoever_holds_it_open_keeps_it(name: str, capsys: Capture) -> None:
    """Also a process that has taken no lock of it yet, and is no vCPU."""
    with Tenant(name) as tenant:
        assert "removed" not in said(capsys, "ls", "--prune")
        err = said(capsys, "rm", name, status=1)
        assert "is in use by processes that have used no lock" in err and "--force" in err
        tenant.do("acquire", "orders")
        assert f"({tenant.pid})" in said(capsys, "rm", name, status=1)
        assert "the processes that have it go on" in said(capsys, "rm", name, "--force")
        assert not segment_path(name).exists()
        tenant.do("release", "orders")


def test_a_death_inside_is_told_before_it_is_forgotten(fresh_name: Any, capsys: Capture) -> None:
    first, second = fresh_name(), fresh_name()
    for name in (first, second):
        with Tenant(name) as tenant:
            tenant.do("acquire", "ledger")
    assert "died while they held ledger: that may be half-done" in said(capsys, "rm", first)
    (removed,) = (r for r in told(capsys, "ls", "--prune")["removed"] if r["name"] == second)
    assert removed["half_done"] == ["ledger"] and not removed["attached"]


def test_rm_refuses_what_is_no_domain(name: str, capsys: Capture) -> None:
    assert "there is no domain" in said(capsys, "rm", name, status=1)
    assert "a domain's name is" in said(capsys, "rm", "not a name", status=1)
    segment_path(name).write_bytes(b"somebody else's" * 100)
    for force in ((), ("--force",)):
        assert "not a pylocks segment" in said(capsys, "rm", name, *force, status=1)
    assert segment_path(name).exists()
    with pylocks.Domain() as domain:
        assert "no name to remove" in said(capsys, "rm", f"@{domain.uid.hex()[:8]}", status=1)


def test_rm_of_another_version_needs_force(name: str, capsys: Capture) -> None:
    header.write(abandoned(name), 1, "abi")
    assert "--force removes it" in said(capsys, "rm", name, status=1)
    assert said(capsys, "rm", name, "--force") == f"removed {name}\n"


def test_rm_goes_on_behind_an_error(fresh_name: Any, capsys: Capture) -> None:
    missing, there = fresh_name(), fresh_name()
    abandoned(there)
    assert cli.main(["rm", missing, there]) == 1
    assert not segment_path(there).exists()


def test_whoever_comes_while_it_is_removed_gets_a_new_one(name: str, capsys: Capture) -> None:
    with pylocks.Domain(name) as old:
        said(capsys, "rm", name, "--force")
        script = f"import pylocks; print(pylocks.Domain({name!r}).uid.hex())"
        assert run.python("-c", script).check().strip() != old.uid.hex()


# ------------------------------------------------------------- top and inspect


def test_top_once(name: str, capsys: Capture) -> None:
    with pylocks.Domain(name) as domain:
        busy, idle = domain.lock("busy"), domain.lock("also")
        busy.acquire()
        with queue(busy, 2):
            lines = said(capsys, "top", name, "--once").splitlines()
            by_name = said(capsys, "top", name, "--once", "--sort", "name").splitlines()
            found = told(capsys, "top", name, "--once")
            everything = told(capsys, "top", "--once")
            busy.release()
        assert lines[0] == f"{name}, 2 locks, 1 held, 2 waiting, 3 threads"
        assert [line.split()[0] for line in lines[2:]] == ["busy", "also"]
        assert [line.split()[0] for line in by_name[2:]] == ["also", "busy"]
        assert lines[2].split()[1] == "2" and str(os.getpid()) in lines[2].split()
        (one,) = found["domains"]
        assert [(lock["name"], lock["queued"]) for lock in one["locks"]] == [("busy", 2), ("also", 0)]
        assert name in {each["label"] for each in everything["domains"]}
        assert idle.waiters == 0


def test_without_a_terminal_top_looks_once(name: str) -> None:
    with pylocks.Domain(name) as domain, domain.lock("orders"):
        out = run.python("-m", "pylocks", "top", name).check()
        assert "1 held" in out and "\x1b" not in out


def test_json_is_a_line_for_each_look(name: str) -> None:
    with pylocks.Domain(name) as domain, domain.lock("orders"):
        command = ["-m", "pylocks", "top", name, "--json", "--interval", "0.1"]
        with run.Interactive(*command) as top:
            held = [
                json.loads(top.line())["domains"][0]["locks"][0]["owner"]["held_at_least_ns"] for _ in "123"
            ]
    assert held[0] is None and 0 < held[1] < held[2]


def test_inspect_once(name: str, capsys: Capture) -> None:
    with pylocks.Domain(name) as domain:
        lock = domain.lock(name)  # a name of its own in any domain
        lock.acquire()
        with queue(lock, 2) as tids:
            lines = said(capsys, "inspect", name, "--once").splitlines()
            found = told(capsys, "inspect", name, "--domain", name, "--once")
            lock.release()
        assert lines[0] == f"{name} in {name}, fifo; 0 tickets served; 2 waiting"
        assert [line.split()[0] for line in lines[2:]] == ["holds", "1", "2"]
        assert all(str(tid) in line.split() for tid, line in zip(tids, lines[3:], strict=True))
        assert found["domain"] == name and [w["tid"] for w in found["lock"]["waiters"]] == tids
        assert "free" in said(capsys, "inspect", name, "--once").splitlines()
        assert "free" in said(capsys, "inspect", "0", "--domain", name, "--once")


def test_inspect_of_what_is_not_there(fresh_name: Any, capsys: Capture) -> None:
    first, second, lock = fresh_name(), fresh_name(), fresh_name()
    with pylocks.Domain(first) as one, pylocks.Domain(second) as other:
        one.lock(lock), other.lock(lock)
        err = said(capsys, "inspect", lock, "--once", status=1)
        assert first in err and second in err and "--domain" in err
        err = said(capsys, "inspect", "missing", "--domain", first, "--once", status=1)
        assert f"no lock 'missing' in {first}" in err and lock in err
        assert "there is no domain" in said(
            capsys, "inspect", lock, "--domain", "nowhere", "--once", status=1
        )
        assert "at least 4 digits" in said(capsys, "top", "@", "--once", status=1)


def test_an_unused_lock_of_an_array_is_free(name: str, capsys: Capture) -> None:
    locks = pylocks.LockArray(10, name)
    try:
        assert f"lock 3 of {name} is free" in said(
            capsys, "inspect", "3", "--domain", name, "--once", status=1
        )
        assert "there is no lock '10'" in said(capsys, "inspect", "10", "--domain", name, "--once", status=1)
    finally:
        locks.close()


@pytest.mark.parametrize("interval", ("0", "-1", "nan", "inf", "soon", "1e9"))
def test_intervals_that_cannot_be(interval: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["top", "--interval", interval])
    assert "is not a number of seconds from 0.1 to 3600" in capsys.readouterr().err


# -------------------------------------------------------------------- stacks

DUMP = [
    {
        "os_thread_id": 12,
        "frames": [
            {"name": "acquire", "filename": "/a/b/till.py", "line": 3},
            {"name": "main", "filename": "/a/b/till.py", "line": 9},
        ],
    },
    {"os_thread_id": 14, "thread_name": "Thread-1", "frames": []},
]


def fake(monkeypatch: pytest.MonkeyPatch, status: int, out: str = "", err: str = "") -> list[list[str]]:
    """py-spy ends so; the commands that it is given."""
    given = []

    def answer(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        given.append(command)
        return subprocess.CompletedProcess(command, status, out, err)

    monkeypatch.setattr(shutil, "which", lambda *_, **__: "/bin/py-spy")
    monkeypatch.setattr(subprocess, "run", answer)
    return given


def test_stacks_are_read_without_stopping_anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    given = fake(monkeypatch, 0, json.dumps(DUMP))
    found = stacks.stacks([(11, 12), (11, 13)])
    assert found == {12: ("acquire (till.py:3)", "main (till.py:9)"), 13: ("(not a Python thread)",)}
    (command,) = given
    assert "--nonblocking" in command and command[-2:] == ["--pid", "11"]


def test_of_an_old_python_the_main_thread_alone_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [{"name": "main", "filename": "/a/b/till.py", "line": 9}]
    nameless = [
        {"os_thread_id": None, "thread_name": name, "frames": frames} for name in ("MainThread", "other")
    ]
    fake(monkeypatch, 0, json.dumps(nameless))
    found = stacks.stacks([(11, 11), (11, 13)])
    assert found[11] == ("main (till.py:9)",) and found[13][0].startswith("(Python before 3.11")


@pytest.mark.parametrize(
    ("err", "reason"),
    (
        ("Error: Permission denied (os error 13)", "not permitted"),
        ("Error: Failed to find python version from target process", "not a Python process"),
        ("something else", "py-spy: something else"),
    ),
)
def test_why_there_is_no_stack(err: str, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, 1, err=err)
    (line,) = stacks.stacks([(11, 12)])[12]
    assert reason in line


def test_stacks_without_py_spy(name: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    err = said(capsys, "inspect", "orders", "--stacks", "--once", status=1)
    assert 'pip install "pylocks[stacks]"' in err


HOLDER = """
import sys, pylocks
def count_the_stock():
    with pylocks.Domain(sys.argv[1]).lock("orders"):
        print("has it", flush=True)
        sys.stdin.readline()
count_the_stock()
"""
WAITER = """
import sys, pylocks
lock = pylocks.Domain(sys.argv[1]).lock("orders")
def take_an_order():
    with lock: pass
print("here", flush=True)
take_an_order()
"""


def test_the_stacks_of_holder_and_waiter(name: str, capsys: Capture) -> None:
    """Of two programs that do not help with it."""
    with run.Interactive("-c", HOLDER, name) as holder:
        assert holder.line() == "has it"
        with run.Interactive("-c", WAITER, name) as waiter:
            assert waiter.line() == "here"
            command = ("inspect", "orders", "--domain", name, "--once", "--stacks")
            until(lambda: snapshot(name).lock("orders").waiters, "it to wait")  # type: ignore[union-attr]
            shown = said(capsys, *command)
            found = told(capsys, *command)["stacks"]
    if "not permitted" in shown:
        pytest.skip("this user may not trace its own processes: kernel.yama.ptrace_scope")
    assert set(found) == {str(holder.pid), str(waiter.pid)}
    for program, does, function in ((holder, "holds", "count_the_stock"), (waiter, "waits", "take_an_order")):
        assert f"thread {program.pid} of process {program.pid} {does}:" in shown
        names = [frame.partition(" ")[0] for frame in found[str(program.pid)]]
        assert names[-2:] == [function, "<module>"] and all("<string>:" in f for f in found[str(program.pid)])
        assert f"    {function} (<string>:" in shown


# -------------------------------------------------------------------- doctor


def test_doctor(capsys: Capture) -> None:
    found = told(capsys, "doctor")
    names = [check["name"] for check in found]
    assert len(set(names)) == len(names) and {*names} >= {
        "a lock", "kernel", "affinity", "CPU quota", "hypervisor", "futex", "robust futex", "membarrier",
        "rseq", "/dev/shm", "patching",
    }  # fmt: skip
    for check in found:
        assert check["grade"] in checks.GRADES and check["found"]
        assert (check["better"] != "") == (check["grade"] != "ok"), check
    text = said(capsys, "doctor")
    assert all(check["name"] in text for check in found)


FACTS = checks.Facts.look()


def grade(name: str, facts: checks.Facts) -> str:
    (found,) = (check for check in checks.checks(facts) if check.name == name)
    assert found.better or found.grade == "ok"
    return found.grade


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    (
        ("affinity", {"cpus": 1}, "note" if (os.cpu_count() or 1) > 1 else "ok"),
        ("CPU quota", {"quota": 0.5}, "note"),
        ("CPU quota", {"quota": 64.0}, "ok"),
        ("CPU quota", {"quota": None}, "ok"),
        ("futex", {"futex": False}, "bad"),
        ("membarrier", {"membarrier": False}, "note"),
        ("hypervisor", {"hypervisor": False}, "ok"),
        ("processor", {"architecture": "aarch64"}, "note"),
    ),
)
def test_what_doctor_makes_of_a_machine(name: str, changes: dict[str, Any], expected: str) -> None:
    machine = dataclasses.replace(FACTS.machine, **changes)
    assert grade(name, dataclasses.replace(FACTS, machine=machine)) == expected


def test_doctor_where_text_stays_as_it_is() -> None:
    why = "whatever; not patched: the text can't be written (Permission denied)"
    rows = tuple(dataclasses.replace(row, kind="indirect", reason=why) for row in FACTS.rows)
    assert grade("patching", FACTS) == "ok"
    assert grade("patching", dataclasses.replace(FACTS, rows=rows)) == "note"


def test_doctor_where_nothing_works() -> None:
    trouble = errors.UnknownOpError("PYLOCKS_OPS: unknown op 'x'")
    facts = dataclasses.replace(FACTS, rows=(), decision=None, trouble=trouble)
    assert {grade(name, facts) for name in ("a lock", "patching", "settings")} == {"bad"}


def test_doctor_reports_bad_settings() -> None:
    environment = run.settings(PYLOCKS_OPS="lock_spinning=nonsense")
    done = run.python("-m", "pylocks", "doctor", environment=environment)
    assert done.status == 1 and "unknown choice 'nonsense'" in done.out and not done.err


def test_one_command_does_not_import_the_others() -> None:
    script = "import sys; from pylocks import cli; cli.main(['top', '--once'])\nprint(*sys.modules)"
    modules = run.python("-c", script).check().split()
    assert "pylocks.observe.top" in modules
    assert not {"rich", "matplotlib", "pylocks.bench.command", "pylocks.stress.command"} & {*modules}


def test_every_command_is_in_the_help(capsys: Capture) -> None:
    with pytest.raises(SystemExit, match="0"):
        cli.main(["--help"])
    out = capsys.readouterr().out
    listed = set(re.findall(r"^    (\w+)", out, re.MULTILINE))
    assert listed == {*cli.COMMANDS, "ops"}
    assert sys.modules["pylocks.bench.command"]
