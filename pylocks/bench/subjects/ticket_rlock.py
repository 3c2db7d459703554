"""The same lock for a thread that may acquire it again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pylocks

from .interface import Subject, Terms
from .ticket_lock import SPARE_VCPUS


@contextmanager
def _open(terms: Terms) -> Iterator[pylocks.TicketRLock]:
    with pylocks.Domain(vcpus=terms.processes + SPARE_VCPUS, locks=16) as domain:
        yield pylocks.TicketRLock(domain=domain, policy=terms.policy)


SUBJECT = Subject("pylocks.TicketRLock", "between processes, in order of arrival, recursive", _open)
