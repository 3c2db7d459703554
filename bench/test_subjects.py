"""A benchmark of what does not lock says nothing: the subjects are locks, and all are in the tables."""

from __future__ import annotations

import re
import threading
from contextlib import nullcontext
from pathlib import Path

import pytest

import pylocks
from pylocks.bench import build, csubjects, subjects


def _files(folder: Path, pattern: str, *others: str) -> set[str]:
    return {path.stem for path in folder.glob(pattern)} - set(others)


def test_every_subject_has_a_file_and_a_row() -> None:
    """A file without a row would never be measured."""
    here = Path(subjects.__file__).parent
    # contextmanager keeps the module of what it decorates.
    rows = {subject.open.__module__.rpartition(".")[2] for subject in subjects.SUBJECTS}
    assert _files(here, "*.py", "__init__", "interface") == rows
    assert _files(build.SOURCES, "*.c", "harness") == {subject.name for subject in csubjects.subjects()}


@pytest.mark.parametrize(
    "subject", [*subjects.SUBJECTS, *csubjects.subjects()], ids=lambda subject: subject.name
)
def test_a_subject_excludes(subject: subjects.Subject | csubjects.CSubject) -> None:
    """While one thread is inside, another is not, and gets in afterwards; nothing excludes nobody."""
    with subject.open() as opened:
        holder = opened if opened is not None else nullcontext()
        at_the_door, inside = threading.Event(), threading.Event()

        def enter() -> None:
            at_the_door.set()
            with holder:
                inside.set()

        other = threading.Thread(target=enter)
        with holder:
            other.start()
            at_the_door.wait()
            both = inside.wait(0.1 if subject.excludes else None)
        other.join()  # before anything can fail: it uses the lock
        assert both is not subject.excludes
        assert inside.is_set()


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
