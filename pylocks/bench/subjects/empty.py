"""Nothing: what is left is the loop that times the others, without any object in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .interface import OPERATIONS, Subject, Terms


@contextmanager
def _open(terms: Terms) -> Iterator[None]:
    yield None


SUBJECT = Subject(
    "empty",
    "no lock: the cost of the loop",
    _open,
    excludes=False,
    statements=dict.fromkeys(OPERATIONS, "pass"),
)
