"""A sample of `make tsan`: data races that the compiler's thread sanitizer sees; and that it sees them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from sanitize import build, sample
from sanitize.build import Plant
from sanitize.sample import LONG, skip_unless_made

from pylocks.ops import slow_paths

skip_unless_made(build.TSAN)
pytestmark = LONG

SAMPLE_S = 3
PLANTED_S = 20
REPORTED = 66


def run(program: Path, *arguments: str | float) -> subprocess.CompletedProcess[str]:
    return sample.run(program, *arguments, environment=build.tsan_environment())


@pytest.mark.parametrize("way", slow_paths())
def test_nothing_is_read_that_another_thread_is_writing(way: str) -> None:
    """With timeouts, waits that are left and taken back, threads that end, and that die in the middle."""
    done = run(build.program(build.TSAN), way, SAMPLE_S)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    found = re.fullmatch(
        rf"{way}: (\d+) critical sections of (\d+) threads, \d+ of which died .*\n", done.stdout
    )
    assert found is not None, done.stdout
    assert int(found[1]) > 100 and int(found[2]) >= 4, done.stdout


def test_what_no_lock_protects_is_reported() -> None:
    done = run(build.program(build.TSAN), "futex", PLANTED_S, 1, "unprotected")
    assert done.returncode == REPORTED
    assert "WARNING: ThreadSanitizer: data race" in done.stderr and "inside" in done.stderr


PLANTS = {
    "an unlock that orders nothing": Plant(
        "include/pylocks/fast.h", "PLK_STORE_RELEASE(&cell->head, t + 1);", "PLK_STORE(&cell->head, t + 1);"
    ),
    "a plain store where others look": Plant("hv/slot.c", "PLK_STORE(&v->generation, ", "(v->generation = "),
}


@pytest.mark.parametrize("plant", PLANTS.values(), ids=PLANTS)
def test_it_bites(plant: Plant) -> None:
    done = run(build.program(build.TSAN, (plant,)), "futex", PLANTED_S)
    assert done.returncode == REPORTED, done.stdout
    assert "WARNING: ThreadSanitizer: data race" in done.stderr
