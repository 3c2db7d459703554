"""Compiles before the first benchmark, measures each scenario once, and prints its tables."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from pylocks import __version__
from pylocks.bench import bars, build, options, report, run, warnings
from pylocks.bench.csubjects import library
from pylocks.bench.results import Found
from pylocks.bench.scenarios import scenario
from pylocks.stress import host

OPERATIONS = 10_000
"""In one call of what pytest-benchmark times without contention: a single one is shorter than the call."""

Measured = Callable[[str], Found]
FOUND = pytest.StashKey[dict[str, Found]]()
OPTIONS = pytest.StashKey[options.Options]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """How long the scenarios take."""
    group = parser.getgroup("pylocks")
    group.addoption("--quick", action="store_true", help="short slices, three rounds, fewer loads")
    group.addoption("--rounds", type=int, help="rounds of which medians are taken")
    group.addoption("--seconds", type=float, help="length of a slice")


def pytest_configure(config: pytest.Config) -> None:
    """Compile first: nothing is timed while the compiler runs, and its errors are told as such."""
    try:
        library()
    except build.CompilerError as error:
        raise pytest.UsageError(str(error)) from error
    quick, rounds, seconds = (config.getoption(name) for name in ("quick", "rounds", "seconds"))
    config.stash[OPTIONS] = options.Options(
        quick=quick,
        rounds=rounds or (options.QUICK_ROUNDS if quick else options.ROUNDS),
        seconds=seconds or (options.QUICK_SECONDS if quick else options.SECONDS),
    )
    config.stash[FOUND] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The quick run has fewer loads."""
    if config.stash[OPTIONS].quick:
        items[:] = [item for item in items if getattr(_cell(item), "quick", True)]


def _cell(item: pytest.Item) -> Any:
    return getattr(item, "callspec").params.get("cell") if hasattr(item, "callspec") else None  # noqa: B009


@pytest.fixture(scope="session")
def measured(request: pytest.FixtureRequest) -> Measured:
    """measured(scenario): all of its selected loads and subjects, in interleaved rounds, once."""
    found = request.config.stash[FOUND]
    work = run.speed()

    def measure(name: str) -> Found:
        if name not in found:
            selected = [
                item.callspec.params
                for item in request.session.items
                if isinstance(item, pytest.Function)
                and hasattr(item, "callspec")
                and getattr(item.callspec.params.get("one"), "name", "") == name
            ]
            base = request.config.stash[OPTIONS]
            wanted = options.Options(
                (name,),
                base.quick,
                base.rounds,
                base.seconds,
                cells=tuple({params["cell"].name for params in selected}),
                # The reference, so that there are ratios.
                subjects=(*{params["subject"] for params in selected}, scenario(name).reference),
            )
            found[name] = run.measure(scenario(name), wanted, work, lambda text: None)
        return found[name]

    return measure


def pytest_benchmark_scale_unit(unit: str) -> tuple[str, float]:
    """Show ns for one operation, and millions of operations a second."""
    return ("n", 1e9) if unit == "seconds" else ("M", 1e-6)


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """The tables in which the rounds are compared."""
    found = config.stash[FOUND]
    if not found:
        return
    base = config.stash[OPTIONS]
    result = {
        "pylocks": __version__,
        "host": host.describe(),
        "compiler": build.compiler_version(),
        "options": base.as_json(),
        "scenarios": {name: asdict(one) for name, one in found.items()},
    }
    result["bars"] = [asdict(verdict) for verdict in bars.judge(result)]
    result["warnings"] = warnings.after(result)
    terminalreporter.section("interleaved rounds")
    report.show(result, sys.stdout)
