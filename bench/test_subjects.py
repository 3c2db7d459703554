"""A benchmark of what does not lock says nothing: the subjects are locks, and all are in the tables."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench import build, csubjects, subjects

THREADS = 4
TURNS = 20_000


def _files(folder: Path, pattern: str, *others: str) -> set[str]:
    return {path.stem for path in folder.glob(pattern)} - set(others)


def test_every_subject_has_a_file_and_a_row() -> None:
    """A file without a row would never be measured."""
    here = Path(subjects.__file__).parent
    rows = {subject.open.__module__.rpartition(".")[2] for subject in subjects.SUBJECTS}
    # contextmanager keeps the module of what it decorates
    assert _files(here, "*.py", "__init__", "interface") == rows
    assert _files(build.SOURCES, "*.c", "harness") == {subject.name for subject in csubjects.subjects()}


@pytest.mark.parametrize("subject", subjects.SUBJECTS, ids=lambda subject: subject.name)
def test_python_subject_excludes(subject: subjects.Subject) -> None:
    """While one thread is inside, another is not, and gets in afterwards."""
    with subject.open() as lock:
        if lock is None:
            assert not subject.excludes
            return
        inside = threading.Event()
        holder = lock

        def enter() -> None:
            with holder:
                inside.set()

        other = threading.Thread(target=enter)
        with holder:
            other.start()
            assert not inside.wait(0.1)
        other.join()
        assert inside.is_set()


@pytest.mark.parametrize("subject", csubjects.subjects(), ids=lambda subject: subject.name)
def test_c_subject_excludes(subject: csubjects.CSubject) -> None:
    """No increment is lost."""
    if not subject.excludes:
        assert subject.name == "empty"
        return
    counter = csubjects.new_counter()
    with subject.open() as lock, ThreadPoolExecutor(THREADS) as pool:
        for done in [pool.submit(lock.raise_counter, TURNS, counter) for _ in range(THREADS)]:
            done.result()
    assert counter[0] == THREADS * TURNS


def test_the_c_subjects_have_patch_sites_of_their_own() -> None:
    """They use the public header as anybody would, as a module of their own."""
    with csubjects.subject("pylocks").open() as lock:
        lock.pairs(1)
    import pylocks

    modules = {op.module for op in pylocks.ops()}
    assert {"pylocks._lock", "bench.csubjects"} <= modules


def test_a_broken_compiler_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The message says which command could not be run."""
    monkeypatch.setenv("CC", str(tmp_path / "no-such-compiler"))
    with pytest.raises(build.CompilerError, match=re.escape("no-such-compiler")):
        build.shared_object()
