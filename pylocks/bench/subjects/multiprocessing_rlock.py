"""The standard library's recursive lock between processes."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager

from .interface import Lock, Subject, Terms


@contextmanager
def _open(terms: Terms) -> Iterator[Lock]:
    yield multiprocessing.get_context("fork").RLock()


SUBJECT = Subject("multiprocessing.RLock", "between related processes, recursive", _open)
