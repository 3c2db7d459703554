"""One operation of each subject when nobody else wants the lock.

The columns show ns of CPU time for one operation, the loop around it included (subject `empty`).  Figures of
different subjects were taken seconds apart; test_ratios.py takes them together.
"""

from __future__ import annotations

import time

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from pylocks.bench.cases import Case, all_cases
from bench.conftest import OPERATIONS


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.key)
@pytest.mark.benchmark(max_time=0.5, min_rounds=20, disable_gc=True, timer=time.thread_time)
def test_uncontended(benchmark: BenchmarkFixture, case: Case) -> None:
    """with lock: pass; acquire and release; the same in C."""
    benchmark.group = case.operation
    benchmark.extra_info["operations_a_call"] = OPERATIONS
    with case.open() as batch:
        batch(OPERATIONS)  # the thread's registration, and what the interpreter learns at first
        benchmark(batch, OPERATIONS)
