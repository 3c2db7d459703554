"""The standard library's lock between processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

from .interface import Lock, Subject, Terms


@contextmanager
def _open(terms: Terms) -> Iterator[Lock]:
    yield multiprocessing.get_context("fork").Lock()


SUBJECT = Subject("multiprocessing.Lock", "between related processes, in no order", _open)
