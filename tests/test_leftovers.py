"""What test runs leave behind that are killed, the next one removes: conftest.remove_leftovers()."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from conftest import LEFTOVER, remove_leftovers, segment_path
from support import run

import pylocks

RUN = """
import os, pylocks
names = [f"test-{os.getpid()}-0", f"schedule.{os.getpid()}-0123456789ab"]
domains = [pylocks.Domain(name) for name in names]
domains[0].lock("orders").acquire()
print(*names, flush=True)
import time
time.sleep(1000)
"""


def test_what_a_killed_run_has_left_is_removed() -> None:
    """Also what it died holding; not before nobody is attached."""
    with run.Interactive("-c", RUN) as other:
        names = other.line().split()
        remove_leftovers()
        assert all(segment_path(name).exists() for name in names)
        with pylocks.Domain(names[1], create=False):
            other.kill()
            remove_leftovers()
            assert [segment_path(name).exists() for name in names] == [False, True]
        remove_leftovers()
        assert not segment_path(names[1]).exists()


def test_what_a_living_run_will_use_again_stays(name: str) -> None:
    pylocks.Domain(name).close()
    remove_leftovers()
    assert segment_path(name).exists()


@pytest.mark.parametrize("form", ("shop", "test-shop-1", "user.0", "test-{}", "schedule-{}-1", "{}"))
def test_other_names_are_no_leftovers(form: str) -> None:
    assert LEFTOVER.fullmatch(f"pylocks.{form.format(2**22 + 1)}") is None


def test_what_is_no_domain_stays(fresh_name: Callable[[], str]) -> None:
    path = segment_path(fresh_name().replace(f"-{os.getpid()}-", f"-{2**22 + 1}-"))
    path.write_bytes(b"not a segment" * 1000)
    try:
        remove_leftovers()
        assert path.exists()
    finally:
        path.unlink()
