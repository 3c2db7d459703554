"""The lock all this is about."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pylocks

from .interface import Subject, Terms

SPARE_VCPUS = 8


@contextmanager
def _open(terms: Terms) -> Iterator[pylocks.TicketLock]:
    # In a domain of its own: those who were killed in one slice are nobody's business in the next.
    with pylocks.Domain(vcpus=terms.processes + SPARE_VCPUS, locks=16) as domain:
        yield pylocks.TicketLock(domain=domain, policy=terms.policy)


@contextmanager
def _open_many(terms: Terms) -> Iterator[Any]:
    with closing(pylocks.LockArray(terms.locks)) as locks:
        yield locks


SUBJECT = Subject("pylocks.TicketLock", "between processes, in order of arrival", _open, open_many=_open_many)
