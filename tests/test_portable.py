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


PLANTS = {
    "a death that nobody is told of": (
        "include/pylocks/fast.h",
        "PLK_CELL_OWNER_DIED) != 0) ? PLK_OWNER_DIED : 0",
        "PLK_CELL_OWNER_DIED) != 0) ? 0 : 0",
        "an acquisition returned 0, not 1",
    ),
    "a stranger that can unlock": (
        "include/pylocks/fast.h",
        "        return -EPERM;\n    __atomic_fetch_and",
        "        return 0;\n    __atomic_fetch_and",
        "a stranger can mark the lock consistent",
    ),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_it_bites(plant: tuple[str, str, str, str], tmp_path: Path) -> None:
    path, old, new, said = plant
    shutil.copytree(CSRC, tmp_path / "csrc", ignore=shutil.ignore_patterns("*.o", "_core.c"))
    text = (tmp_path / "csrc" / path).read_text()
    assert text.count(old) == 1
    (tmp_path / "csrc" / path).write_text(text.replace(old, new))
    done = suite(runnable(TARGETS["native"]), tmp_path / "csrc")
    assert done.returncode != 0 and said in done.stderr, done.stdout + done.stderr
