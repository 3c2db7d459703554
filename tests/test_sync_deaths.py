"""Threads that use a semaphore or its like, killed before any of their instructions: tests/mortal.

`python -m mortal` in tests/ does it at every one; here it is done at some of each path.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from compiling import compiler
from mortal.build import build, why_not
from support.run import settings

POINTS = 12
TESTS = Path(__file__).resolve().parent

PATHS = (
    "take", "give", "give-after-death", "wait", "called", "leave", "leave-called", "signal", "recover",
    "mutex-take", "mutex-give", "mutex-called", "event-set", "event-wait", "owned-take", "owned-give",
    "owned-called", "condition-notify", "condition-notified", "condition-leave",
    "barrier-first", "barrier-last",
    "rw-read", "rw-write", "rw-leave-read", "rw-leave-write", "rw-let-in", "rw-let-in-write",
)  # fmt: skip


@pytest.fixture(scope="module")
def mortal() -> Path:
    if shutil.which(compiler()[0]) is None:
        pytest.skip("no C compiler")
    reason = why_not()
    if reason:
        pytest.skip(reason)
    return build()


def test_all_paths_are_here(mortal: Path) -> None:
    said = subprocess.run([mortal], capture_output=True, text=True, check=True).stdout
    assert tuple(said.split()) == PATHS


@pytest.mark.parametrize("path", PATHS)
def test_whoever_is_killed_the_others_get_on(mortal: Path, path: str) -> None:
    done = subprocess.run([mortal, path, str(POINTS)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.fullmatch(rf"{path} (\d+) (\d+)\n", done.stdout)
    assert found is not None, done.stdout
    assert int(found[1]) > 100 and int(found[2]) >= POINTS


def test_the_whole_of_it_can_be_run(mortal: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mortal", "--points", "2", "take", "leave"],
        cwd=TESTS, env=settings(), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["take", "leave"]


def test_a_name_that_is_none(mortal: Path) -> None:
    done = subprocess.run([mortal, "nonsense"], capture_output=True, text=True)
    assert done.returncode == 1 and "no such path" in done.stdout
