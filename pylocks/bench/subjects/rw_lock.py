"""The write side of a lock for readers and writers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pylocks

from .interface import Lock, Subject, Terms
from .ticket_lock import SPARE_VCPUS


@contextmanager
def _open(terms: Terms) -> Iterator[Lock]:
    with pylocks.Domain(vcpus=terms.processes + SPARE_VCPUS, locks=16) as domain:
        yield pylocks.RWLock(domain=domain).write


SUBJECT = Subject("pylocks.RWLock", "between processes; here one writer at a time", _open)
