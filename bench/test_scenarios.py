"""All scenarios but the uncontended: a row for each subject in each load.

A scenario is measured once, in interleaved rounds of all that was selected, and each row is a replay of
its own rounds: the time of pytest-benchmark's tables is the time for one acquisition, "rounds" are
slices.  Its other figures stand in the row's extra_info, and in the tables of the summary.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.clock import Clock
from bench.conftest import Measured
from pylocks.bench.results import typical
from pylocks.bench.scenarios import SCENARIOS, Cell, Scenario

FIGURES = ("rate", "jain", "p50", "p99", "p999", "max", "cpu", "switches")
ROWS = [
    pytest.param(one, cell, subject, id=f"{one.name} {cell.name} {subject}")
    for one in SCENARIOS
    for cell in one.cells
    for subject in one.lineup
]
CLOCK = Clock()


@pytest.mark.parametrize(("one", "cell", "subject"), ROWS)
@pytest.mark.benchmark(timer=CLOCK)
@pytest.mark.timeout(0)  # the first of a scenario waits for all of it
def test_scenario(
    benchmark: BenchmarkFixture, measured: Measured, one: Scenario, cell: Cell, subject: str
) -> None:
    """One acquisition of one subject under one load."""
    found = measured(one.name)
    facts = found.facts[subject]
    if "unavailable" in facts:
        pytest.skip(facts["unavailable"])
    samples = [sample for sample in found.cells[cell.name][subject] if sample["rate"]]
    if not samples:
        pytest.skip("nobody got the lock in any round")
    benchmark.group = f"{one.name} {cell.name}"
    for figure in FIGURES:
        middle = typical(samples, figure)
        benchmark.extra_info[figure] = None if middle is None else middle.median
    rounds = iter(samples)
    benchmark.pedantic(lambda: CLOCK.advance(1 / next(rounds)["rate"]), rounds=len(samples))
