"""One operation of each subject when nobody else wants the lock.

The columns show ns of CPU time for one operation, the loop around it included (subject `empty`).  Figures of
different subjects were taken seconds apart; the table of ratios in the summary takes them together.
"""

from __future__ import annotations

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.clock import Clock
from bench.conftest import FOUND, OPERATIONS, OPTIONS
from pylocks.bench.subjects import UnavailableError
from pylocks.bench.uncontended.cases import Case, all_cases
from pylocks.bench.uncontended.measure import as_found

CLOCK = Clock()


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.key)
@pytest.mark.benchmark(timer=CLOCK)
def test_uncontended(benchmark: BenchmarkFixture, case: Case) -> None:
    """with lock: pass; acquire and release; the same in C."""
    benchmark.group = case.operation
    try:
        with case.open() as batch:
            n = OPERATIONS
            while n > 1 and batch(n) > 5e6:  # also the thread's registration, and what the interpreter learns
                n //= 10
            benchmark.extra_info["operations_a_round"] = n
            benchmark.pedantic(lambda: CLOCK.advance(batch(n) / n / 1e9), rounds=200)
    except UnavailableError as error:
        pytest.skip(str(error))


def test_ratios(request: pytest.FixtureRequest) -> None:
    """A benchmark: it reports, and passes whatever the ratios are."""
    config = request.config
    config.stash[FOUND]["uncontended"] = as_found(config.stash[OPTIONS], lambda text: None)
