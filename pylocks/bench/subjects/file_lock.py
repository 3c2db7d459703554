"""The filelock package: flock, asked every 50 ms."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .interface import Lock, Subject, Terms, UnavailableError


def _lock(path: str) -> Lock:
    try:
        found: Any = importlib.import_module("filelock")
    except ImportError as error:
        raise UnavailableError('filelock is not installed: pip install "pylocks[bench]"') from error
    made: Lock = found.FileLock(path)
    return made


@contextmanager
def _open(terms: Terms) -> Iterator[Lock]:
    with tempfile.TemporaryDirectory(prefix="pylocks-bench-") as folder:
        yield _lock(str(Path(folder, "lock")))


def _again(lock: Any) -> Lock:
    return _lock(lock.lock_file)


SUBJECT = Subject(
    "filelock", "between unrelated processes, recovers from death, polls", _open, inherit=_again
)
