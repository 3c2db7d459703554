"""What every test gets: names of its own, no settings from outside, and a look at what it leaves behind."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from support import hygiene, puppet
from support.wait import until

import pylocks
from pylocks.observe.places import Place
from pylocks.observe.remove import remove

SHM = Path("/dev/shm")
ANONYMOUS = re.compile(r"pylocks\.[0-9a-f]{32}")
HELPERS = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
LEFTOVER = re.compile(r"pylocks\.(?:test-|page-|schedule\.)(\d+)-.*")
"""A segment that a test run has made, and its process id."""
_numbers = itertools.count()


def pytest_configure(config: pytest.Config) -> None:
    for variable in [name for name in os.environ if name.startswith("PYLOCKS_")]:
        del os.environ[variable]
    # Where the tests run in the background of a shell, they and their programs would not hear of Ctrl-C.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    remove_leftovers()


def remove_leftovers(folder: Path = SHM) -> list[str]:
    """Remove the segments of test runs that were killed; which.

    What is certainly dead: the process in its name is, and nobody is attached (remove() proves that).
    """
    gone = []
    for path in sorted(folder.iterdir()):
        found = LEFTOVER.fullmatch(path.name)
        if found is None or psutil.pid_exists(int(found[1])):
            continue
        with contextlib.suppress(pylocks.PylocksError, OSError):
            gone.append(remove(Place(path.name.removeprefix("pylocks."), str(path))).name)
    return gone


def _children() -> set[int]:
    """Child processes of this one's group, without the helpers that multiprocessing keeps."""
    found = set()
    for child in psutil.Process().children():
        try:
            if os.getpgid(child.pid) == os.getpgrp() and not any(
                helper in word for word in child.cmdline() for helper in HELPERS
            ):
                found.add(child.pid)
        except (psutil.NoSuchProcess, ProcessLookupError):
            pass
    return found


def _anonymous_segments() -> set[str]:
    return {entry for entry in os.listdir(SHM) if ANONYMOUS.fullmatch(entry)}


@pytest.fixture(autouse=True)
def leaves_nothing_behind() -> Iterator[None]:
    """No process outlives its test, and no anonymous segment is ever seen for longer than a moment."""
    before = _children()
    yield
    until(lambda: not _children() - before, "the test's processes to end", 10)
    until(lambda: not _anonymous_segments(), "anonymous segments to lose their names", 10)


@pytest.fixture(scope="module", autouse=True)
def the_same_before_and_after(request: pytest.FixtureRequest) -> Iterator[None]:
    """/dev/shm and this process's descriptors; and the resource tracker finds nothing to clean up."""
    failures = request.session.testsfailed
    with hygiene.heard_tracker() as said:
        before = hygiene.Belongings.now()
        yield
        complaints = hygiene.dismiss_helpers(said)
        for item in request.session.items:  # the last test's arguments are still there
            if isinstance(item, pytest.Function) and item.funcargs and request.node in item.listchain():
                item.funcargs.clear()
        gc.collect()
        if request.session.testsfailed == failures:  # else the traceback keeps things alive
            complaints += before.changes()
        if complaints:
            pytest.fail(f"{request.module.__name__} left something behind:\n{complaints}", pytrace=False)


@pytest.fixture
def fresh_name() -> Iterator[Callable[[], str]]:
    """Names for domains that nobody else uses; what lies under them is removed afterwards."""
    given = []

    def make() -> str:
        given.append(f"test-{os.getpid()}-{next(_numbers)}")
        return given[-1]

    yield make
    for name in given:
        path = segment_path(name)
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink(missing_ok=True)


@pytest.fixture
def name(fresh_name: Callable[[], str]) -> str:
    """One such name."""
    return fresh_name()


@pytest.fixture
def waiting() -> Iterator[Callable[[pylocks.TicketLock], puppet.Puppet]]:
    """Other processes with a lock."""
    made = []

    def make(lock: pylocks.TicketLock) -> puppet.Puppet:
        made.append(puppet.Puppet("fork", lock))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def nothing_is_left_of_tasks() -> Iterator[None]:
    """No lock is held, none waited for, and nothing known of tasks that are gone."""
    from pylocks.aio import lines, seats  # where a test has asked for it

    yield
    assert (lines.lines, lines.holders) == ({}, {})
    gc.collect()
    assert seats.tasks == {}


POLICIES = ("fifo", "bounded")


def segment_path(name: str) -> Path:
    """Where the segment of a domain lies."""
    return SHM / f"pylocks.{name}"
