"""A named POSIX semaphore of 1, as the posix_ipc package wraps it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import posix_ipc

from .interface import Lock, Subject, Terms


@contextmanager
def _open(terms: Terms) -> Iterator[Lock]:
    semaphore = posix_ipc.Semaphore(None, posix_ipc.O_CREX, initial_value=1)
    semaphore.unlink()  # at once: the name is not needed any more, and can't be left behind
    try:
        yield semaphore
    finally:
        semaphore.close()


SUBJECT = Subject("posix_ipc.Semaphore", "between unrelated processes, in no order", _open)
