"""The core without Python, on other processors and C libraries: `make aarch64` and `make musl`."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from portable.build import CSRC, Target, suite, targets, why_not

from pylocks.ops import slow_paths

if not CSRC.is_dir():  # pragma: no cover
    pytest.skip("these tests compile the source tree", allow_module_level=True)

pytestmark = pytest.mark.timeout(900)  # seconds of work, on a machine that may be busy

TARGETS = targets()


def runnable(target: Target) -> Target:
    if reason := why_not(target):
        pytest.skip(reason)
    return target


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_the_core_keeps_its_promises_there(target: Target) -> None:
    """Exclusion, order, timeouts, deaths, under both policies; with every slow path that is sound."""
    done = suite(runnable(target))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    _, *ways, total = done.stdout.splitlines()
    assert {way.split(",")[0].split(":")[0] for way in ways} == set(slow_paths())
    counted = [int(re.fullmatch(r".*: (\d+) checks", way)[1]) for way in ways]
    assert total == f"passed: {sum(counted)} checks in {len(ways)} ways"
    assert min(counted) >= 9, "under each policy"


def test_it_bites(tmp_path: Path) -> None:
    """A death that nobody is told of."""
    shutil.copytree(CSRC, tmp_path / "csrc", ignore=shutil.ignore_patterns("*.o", "_core.c"))
    path = tmp_path / "csrc" / "include" / "pylocks" / "fast.h"
    text, told = path.read_text(), "PLK_CELL_OWNER_DIED) != 0) ? PLK_OWNER_DIED : 0"
    assert text.count(told) == 1
    path.write_text(text.replace(told, told.replace("PLK_OWNER_DIED :", "0 :")))
    done = suite(runnable(TARGETS["native"]), tmp_path / "csrc")
    assert done.returncode != 0
    assert "dead holder" in done.stderr and "an acquisition returned 0, not 1" in done.stderr, done.stderr
