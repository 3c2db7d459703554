"""The look at what a test module leaves behind finds what it is for."""

from __future__ import annotations

import os
from multiprocessing import resource_tracker
from pathlib import Path

import pytest
from conftest import segment_path
from support import run
from support.hygiene import Belongings, dismiss_helpers, heard_tracker
from support.wait import until

import pylocks


def test_what_comes_and_goes_is_no_change(name: str) -> None:
    before = Belongings.now()
    with pylocks.Domain(name) as domain, domain.lock("orders"):
        pass
    domain.unlink()
    with open(os.devnull):
        pass
    assert before.changes() == ""


def test_a_segment_that_is_left_is_found(name: str) -> None:
    before = Belongings.now()
    pylocks.Domain(name).close()
    assert f"pylocks.{name}" in before.changes(grace=0)
    segment_path(name).unlink()
    assert before.changes() == ""


def test_a_segment_whose_processes_have_ended_is_found(name: str) -> None:
    """Nobody has it mapped, and its maker is gone."""
    before = Belongings.now()
    run.python("-c", "import pylocks, sys; pylocks.Domain(sys.argv[1])", name).check()
    assert f"pylocks.{name}" in before.changes(grace=0)
    segment_path(name).unlink()
    assert before.changes() == ""


def test_a_segment_that_somebody_else_uses_is_theirs() -> None:
    """Such as the one in which another program on the machine has its named locks."""
    elsewhere = f"user.{1_000_000_000 + os.getpid()}"
    # Not a child of this process: its parent has ended by the time it speaks.
    script = (
        "import os, pylocks, sys\n"
        "if os.fork(): os._exit(0)\n"
        "kept = pylocks.Domain(sys.argv[1])\n"
        "print('made', flush=True)\n"
        "input()\n"
    )
    try:
        with run.Interactive("-c", script, elsewhere) as other:
            before = Belongings.now()
            assert other.line() == "made"
            assert before.changes(grace=0) == ""
            other.say("")
            assert other.line() == ""
            until(lambda: elsewhere in before.changes(grace=0), "its end, and its segment found")
    finally:
        segment_path(elsewhere).unlink(missing_ok=True)


def test_descriptors_left_open_and_closed_are_found() -> None:
    readable, writable = os.pipe()
    before = Belongings.now()
    extra = os.dup(writable)
    os.close(readable)
    changes = before.changes(grace=0)
    assert f"left open: {extra} -> pipe:" in changes
    assert f"closed: {readable} -> pipe:" in changes
    os.close(extra)
    os.close(writable)


def test_the_resource_tracker_is_heard() -> None:
    with open(os.devnull, "w+") as nowhere:
        dismiss_helpers(nowhere)  # those that may be running already
    with heard_tracker() as said:
        assert dismiss_helpers(said) == ""
        resource_tracker.register("/pylocks-of-nobody", "shared_memory")
        assert "leaked" in dismiss_helpers(said)


LEAKY = """
import os, multiprocessing.resource_tracker
from conftest import *
def test_leak(name):
    {leak}
"""


@pytest.mark.parametrize(
    ("leak", "complaint"),
    (
        ("pass", ""),
        ("os.dup(1)", "descriptor left open"),
        ("segment_path(f'extra-{os.getpid()}-1').touch()", "left in /dev/shm: pylocks.extra-"),
        ("multiprocessing.resource_tracker.register('/pylocks-of-nobody', 'shared_memory')", "leaked"),
    ),
)
def test_a_module_that_leaks_fails(leak: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "test_leaky.py"
    path.write_text(LEAKY.format(leak=leak))
    arguments = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, path)
    done = run.python(*arguments, environment=run.settings(TESTS_GRACE_S="0.5"))
    assert (done.status == 0) == (complaint == ""), done.out
    assert complaint in done.out
    for entry in Path("/dev/shm").glob("pylocks.extra-*"):
        if not run.alive(int(entry.name.split("-")[1])):
            entry.unlink()
