"""What the tests that run a sample of these programs have in common."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from sanitize import build

LONG = pytest.mark.timeout(170)
"""The first to come compiles the whole core."""


def skip_unless_made(what: build.Program) -> None:
    """Skip the test module that calls this where the program can't be made and run."""
    if not build.CSRC.is_dir():  # pragma: no cover
        pytest.skip("these tests compile the source tree", allow_module_level=True)
    if reason := build.why_not(what.sanitizer):  # pragma: no cover
        pytest.skip(reason, allow_module_level=True)


def run(
    program: Path, *arguments: str | float | Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, whatever it prints."""
    return subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True, text=True, errors="replace", timeout=110, env=environment,
    )  # fmt: skip
