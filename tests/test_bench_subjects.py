"""A benchmark of what does not lock says nothing: the subjects are locks, and all are in the tables."""

from __future__ import annotations

import re
import threading
from contextlib import AbstractContextManager, ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest

import pylocks
from pylocks.bench import build, csubjects, subjects
from pylocks.bench.subjects.flock import Flock


def _files(folder: Path, pattern: str, *others: str) -> set[str]:
    return {path.stem for path in folder.glob(pattern)} - set(others)


def test_every_subject_has_a_file_and_a_row() -> None:
    """A file without a row would never be measured."""
    here = Path(subjects.__file__).parent
    # contextmanager keeps the module of what it decorates.
    rows = {subject.open.__module__.rpartition(".")[2] for subject in subjects.SUBJECTS}
    packages = {path.parent.name for path in here.glob("*/__init__.py")}
    assert _files(here, "*.py", "__init__", "interface") | packages == rows
    sources = _files(build.SOURCES, "*.c", "harness", "conductor")
    assert sources == {subject.name for subject in csubjects.subjects()}


def _excludes(
    holder: AbstractContextManager[Any], other: AbstractContextManager[Any], expected: bool
) -> None:
    """While one thread is inside, another is not, and gets in afterwards; nothing excludes nobody."""
    at_the_door, inside = threading.Event(), threading.Event()

    def enter() -> None:
        at_the_door.set()
        with other:
            inside.set()

    thread = threading.Thread(target=enter)
    with holder:
        thread.start()
        at_the_door.wait()
        both = inside.wait(0.1 if expected else None)
    thread.join()  # before anything can fail: it uses the lock
    assert both is not expected
    assert inside.is_set()


@pytest.mark.parametrize("subject", csubjects.subjects(), ids=lambda subject: subject.name)
def test_a_c_subject_excludes(subject: csubjects.CSubject) -> None:
    with subject.open() as lock:
        _excludes(lock, lock, subject.excludes)


@pytest.mark.parametrize("subject", subjects.SUBJECTS, ids=lambda subject: subject.name)
def test_a_python_subject_excludes(subject: subjects.Subject) -> None:
    with ExitStack() as stack:
        try:
            lock = stack.enter_context(subject.open(subjects.Terms(processes=2)))
        except subjects.UnavailableError as error:
            pytest.skip(str(error))
        mine = lock if lock is not None else nullcontext()
        other = subject.inherit(lock) if lock is not None else nullcontext()
        if isinstance(other, Flock):
            stack.callback(other.close)
        _excludes(mine, other, subject.excludes)


def test_the_c_subjects_have_patch_sites_of_their_own() -> None:
    """They use the public header as anybody would, as a module of their own."""
    with csubjects.subject("pylocks").open() as lock:
        lock.pairs(1)
    modules = {op.module for op in pylocks.ops()}
    assert {"pylocks._lock", "bench.csubjects"} <= modules


def test_a_broken_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message says which command could not be run."""
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    with pytest.raises(build.CompilerError, match=re.escape("no-such-compiler")):
        build.shared_object()
