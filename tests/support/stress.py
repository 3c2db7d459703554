"""Running the stress program, and single rows of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pylocks.stress.chaos.plan import ChaosPlan
from pylocks.stress.row import Plan

COMMAND = [sys.executable, "-m", "pylocks"]
SHORT = ("--seconds", "0.2")


def stress(*options: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `pylocks stress` to its end."""
    return subprocess.run(
        [*COMMAND, "stress", *options],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def measured(path: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit status and results of a run."""
    done = stress(*options, "--json", str(path))
    assert path.exists(), done.stderr
    return done.returncode, json.loads(path.read_text())


def result_of_row(code: str, plan: Plan | ChaosPlan) -> dict[str, Any]:
    """What a row tells in the end that is run by this code, in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(plan.to_json() + "\n")
        process.stdin.flush()
        *_, last = process.stdout
        row: dict[str, Any] = json.loads(last)["row"]
    assert process.returncode == 0
    return row
