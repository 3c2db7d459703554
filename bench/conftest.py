"""Builds the C subjects before the first benchmark, and prints ratios where they can be seen."""

from __future__ import annotations

from typing import Any

import pytest

from pylocks.bench import build, csubjects, report
from pylocks.bench.results import Results

OPERATIONS = 10_000
"""In one call of what pytest-benchmark times: a single one is shorter than the call."""

RESULTS = pytest.StashKey[Results]()


def pytest_configure() -> None:
    """Compile first: nothing is timed while the compiler runs, and its errors are told as such."""
    try:
        csubjects.subjects()
    except build.CompilerError as error:
        raise pytest.UsageError(str(error)) from error


def pytest_benchmark_scale_unit(unit: str) -> tuple[str, float]:
    """Show what one operation takes, in ns, and millions of operations a second."""
    return ("n", 1e9 / OPERATIONS) if unit == "seconds" else ("M", 1e-6 * OPERATIONS)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The table of ratios."""
    results = config.stash.get(RESULTS, None)
    if results is not None:
        terminalreporter.section("ratios")
        terminalreporter.write_line(report.text(results))
