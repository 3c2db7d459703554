"""Fixtures that put processes on a stage; see staging.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from patching import build
from ptracing import why_not
from staging import Stage, Staging


@pytest.fixture(scope="session")
def extension(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension module that takes the lock step by step."""
    return build("stepping", ["stepping.c"], tmp_path_factory.mktemp("stepping"))


@pytest.fixture
def stage(extension: Path) -> Iterator[Staging]:
    """Make a Stage; all of them are closed at the end."""
    made: list[Stage] = []

    def make(parties: int, *, traced: bool = True, **settings: Any) -> Stage:
        if traced and why_not():
            pytest.skip(why_not())
        # One CPU each: nobody spins, so that every waiter goes the whole way to its sleep.
        cpu = min(os.sched_getaffinity(0)) if traced else None
        made.append(Stage(extension, parties, cpu, traced, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()
