"""The lock all this is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pylocks
from .interface import Subject


@contextmanager
def _open() -> Iterator[pylocks.TicketLock]:
    yield pylocks.TicketLock()


SUBJECT = Subject("pylocks.TicketLock", "between processes, in order of arrival", _open)
