"""The ratios that pylocks is held to; the table stands in the summary, met or missed."""

from __future__ import annotations

import pytest

from bench.conftest import RESULTS
from pylocks.bench.ratios import measure
from pylocks.bench.results import Options


def test_ratios(request: pytest.FixtureRequest) -> None:
    """A benchmark: it reports, and passes whatever the ratios are."""
    request.config.stash[RESULTS] = measure(Options())
