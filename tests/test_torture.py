"""A sample of `make torture`: processes killed at chosen instructions, and the others get on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from compiling import compiler
from torture.harness import (
    BREAKAGES,
    ROOT,
    Configuration,
    Result,
    build,
    configurations,
    run,
    why_not,
)

NOBODY = 65534
"""A user without rights."""

PATHS = {
    "lock", "unlock", "spin", "wait", "kick", "pass", "leave", "leave-served", "leave-passed", "resume",
    "resume-late", "try", "try-busy", "try-dead", "nest", "nest-wait", "recover-holder", "recover-waiter",
    "recover-granted", "recover-announced", "recover-drawn", "recover-kick", "recover-mark",
    "recover-passed", "recover-nested", "recover-guard", "arrive-behind-drawn", "recover-all", "consistent",
    "enroll", "enroll-again", "enroll-dirty", "enroll-guard", "enroll-after-holder", "enroll-after-drawn",
    "enroll-after-waiter", "close", "exit", "exit-holding",
}  # fmt: skip
BOUNDED = {
    "barge", "barge-past", "bounded-unlock", "gate-spin", "standby", "queue", "promoted",
    "self-promoted", "promote", "leave-it-to-sleeper", "gate-kick", "doubt", "doubt-dead",
    "queue-timeout", "standby-timeout", "gate-timeout", "queue-resume", "gate-resume", "standby-nest",
    "queue-recover-holder", "queue-recover-standby", "queue-recover-promoted", "queue-recover-queued",
    "queue-recover-both",
}  # fmt: skip
"""Of a bounded lock: not natively, where there is none, nor with a rescue."""


def paths_of(configuration: Configuration) -> set[str]:
    return PATHS if configuration.slow == "native" or configuration.rescue else PATHS | BOUNDED


@pytest.fixture(scope="module")
def harness() -> Path:
    if shutil.which(compiler()[0]) is None:
        pytest.skip("no C compiler")
    reason = why_not()
    if reason:
        pytest.skip(reason)
    return build()


def fine(result: Result) -> None:
    """Nothing was found, and something was done."""
    assert not result.findings, result.findings[0]
    assert not result.failed
    for path in result.paths:
        assert path.kills >= 1 and 1 <= path.addresses <= path.points, path


def named(name: str) -> Configuration:
    return next(found for found in configurations() if found.name == name)


def test_every_slow_path_is_tortured_patched_and_unpatched() -> None:
    found = [(one.slow, one.patched) for one in configurations()]
    assert {("futex", True), ("futex", False), ("yield", True), ("yield", False)} <= set(found)
    names = [one.name for one in configurations()]
    assert len(set(names)) == len(names)


def test_every_path_has_a_name_and_a_meaning(harness: Path) -> None:
    listed = subprocess.run([harness, "--list"], capture_output=True, text=True, check=True).stdout
    rows = [line.split("\t") for line in listed.splitlines()]
    assert {name for name, _ in rows} == PATHS | BOUNDED and len(rows) == len(PATHS) + len(BOUNDED)
    assert all(len(meaning) >= 10 for _, meaning in rows)


@pytest.mark.parametrize("configuration", configurations(), ids=lambda one: one.name.replace(" ", "-"))
def test_every_instruction_of_the_fast_path(harness: Path, configuration: Configuration) -> None:
    fast = ["lock", "unlock", "try", "barge", "bounded-unlock"]
    result = run(configuration, paths=fast, harness=harness)
    fine(result)
    assert [path.name for path in result.paths] == [p for p in fast if p in paths_of(configuration)]
    assert result.without == [p for p in fast if p not in paths_of(configuration)]
    for path in result.paths:
        assert path.kills == path.points == path.instructions, "no loop, and nothing left out"


SAMPLED = (
    "futex patched membarrier", "futex unpatched fence", "futex patched membarrier rescue",
    "yield patched fence", "native unpatched",
)  # fmt: skip


@cache
def sampled(name: str) -> Result:
    return run(named(name), sample=10, paths=sorted(paths_of(named(name))))


@pytest.mark.parametrize("name", SAMPLED)
def test_a_sample_of_every_path(harness: Path, name: str) -> None:
    result = sampled(name)
    fine(result)
    paths = paths_of(result.configuration)
    assert {path.name for path in result.paths} == paths
    assert sum(path.kills for path in result.paths) >= 10 * len(paths)


def test_waiting_and_recovery_kill_far_beyond_the_fast_path(harness: Path) -> None:
    """The paths go where their names say: into the slow paths, through system calls, and back."""
    points = {path.name: path.points for path in sampled("futex patched membarrier").paths}
    assert points["wait"] > 5 * points["lock"], "it parks and is woken"
    assert points["kick"] > points["unlock"] + 50, "it looks for the one to wake"
    assert points["pass"] > points["kick"]
    assert points["gate-timeout"] > points["standby-timeout"], "it leaves the gate and the queue"
    for name in PATHS | BOUNDED:
        if name.startswith(("recover-", "queue-recover-")) and name != "recover-announced":
            assert points[name] > 500, name
    assert points["exit-holding"] < points["exit"], "who holds a lock leaves its slot to recovery"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_without_privileges(harness: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = Path("/tmp", f"torture-{os.getpid()}")  # pytest's own are closed to others
    folder.mkdir()
    try:
        folder.chmod(0o755)
        copy = Path(shutil.copy(harness, folder / "torture"))
        copy.chmod(0o755)
        everything = sorted(PATHS | BOUNDED)
        fine(run(named("futex patched membarrier"), sample=5, paths=everything, harness=copy, user=NOBODY))
    finally:
        shutil.rmtree(folder)


# ------------------------------------------------------- that it would notice


def kinds(result: Result) -> set[str]:
    return {finding.kind for finding in result.findings}


def test_a_lock_that_does_not_exclude_is_found(harness: Path) -> None:
    busted = Configuration("busted", True, "fence")
    result = run(busted, paths=("lock", "wait"), sample=20, patience=2, harness=harness)
    assert result.failed and "violation" in kinds(result)
    assert result.findings[0].state, "with the state at that time"


def test_waiters_that_never_look_after_the_dead_are_found(harness: Path) -> None:
    result = run(
        named("futex patched membarrier"), paths=("unlock",), sample=10, patience=1, broken="blind",
        harness=harness,
    )  # fmt: skip
    assert result.failed and kinds(result) == {"hang"}
    assert result.findings[0].where.startswith(("release+", "plk_unlock"))
    assert any("lock 0" in line for line in result.findings[0].state)


def test_a_dead_holder_that_is_not_found_is_found_here(harness: Path) -> None:
    result = run(
        named("yield patched fence"), paths=("unlock",), sample=10, patience=1, broken="held", harness=harness
    )
    assert result.failed and kinds(result) == {"hang"}


def test_a_death_that_nobody_is_told_of_is_found(harness: Path) -> None:
    result = run(
        named("futex patched membarrier"), paths=("unlock",), sample=10, broken="owner", harness=harness
    )
    assert result.failed and kinds(result) == {"violation"}
    assert "expected: 1" in result.findings[0].problem


# --------------------------------------------------------------- the command


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    paths = [str(Path(__file__).resolve().parent), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return subprocess.run(
        [sys.executable, "-m", "torture", *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True, text=True, timeout=100,
    )  # fmt: skip


def test_the_command_prints_a_table_and_writes_json(harness: Path, tmp_path: Path) -> None:
    file = tmp_path / "torture.json"
    done = command("--paths", "lock,try", "--configurations", "futex", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["configuration", "path", "instructions", "kills", "missed", "hangs",
                                "violations", "s"]  # fmt: skip
    assert lines[-2].startswith("total") and lines[-1] == "verdict: nothing stuck, nothing lost"
    document = json.loads(file.read_text())
    assert document["failed"] is False
    assert len(document["results"]) == len([one for one in configurations() if "futex" in one.name])
    rows = [path for result in document["results"] for path in result["paths"]]
    assert document["total"]["kills"] == sum(row["kills"] for row in rows) > 100
    assert len(lines) == len(rows) + 3


def test_the_command_fails_when_something_is_found(harness: Path) -> None:
    done = command(
        "--paths", "unlock", "--configurations", "futex patched fence", "--sample", "5", "--break", "owner"
    )
    assert done.returncode == 1
    assert "  violation in unlock, killed at " in done.stdout
    assert done.stdout.endswith("verdict: FAILED\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [(("--configurations", "hosted by gnomes"), "no configuration"), (("--paths", "nowhere"), "no path")],
)
def test_the_command_says_what_it_does_not_know(
    harness: Path, arguments: tuple[str, ...], complaint: str
) -> None:
    done = command(*arguments)
    assert done.returncode == 2 and complaint in done.stderr


def test_what_can_be_broken_is_known_to_the_harness(harness: Path) -> None:
    for broken in BREAKAGES:
        done = subprocess.run([harness, "--break", broken, "--list"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    done = subprocess.run([harness, "--break", "nothing", "--list"], capture_output=True, text=True)
    assert done.returncode == 2 and "nothing" in done.stderr
