"""The standard library's recursive lock between threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .interface import Lock, Subject, Terms


@contextmanager
def _open(terms: Terms) -> Iterator[Lock]:
    yield threading.RLock()


SUBJECT = Subject("threading.RLock", "between threads of one process, recursive", _open, across="threads")
