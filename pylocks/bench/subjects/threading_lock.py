"""The standard library's lock between threads: the least that a lock can do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from .interface import Lock, Subject, Terms


@contextmanager
def _open(terms: Terms) -> Iterator[Lock]:
    yield threading.Lock()


SUBJECT = Subject("threading.Lock", "between threads of one process, in no order", _open, across="threads")
