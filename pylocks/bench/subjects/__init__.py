"""The table of Python subjects: one row, one file."""

from __future__ import annotations

from . import (
    empty,
    empty_type,
    file_lock,
    flock,
    multiprocessing_lock,
    multiprocessing_rlock,
    posix_ipc_semaphore,
    rw_lock,
    threading_lock,
    threading_rlock,
    ticket_lock,
    ticket_rlock,
)
from .interface import OPERATIONS, Lock, Subject, Terms, UnavailableError

__all__ = ["OPERATIONS", "SUBJECTS", "Lock", "Subject", "Terms", "UnavailableError", "subject"]

SUBJECTS: tuple[Subject, ...] = (
    ticket_lock.SUBJECT,
    ticket_rlock.SUBJECT,
    rw_lock.SUBJECT,
    threading_lock.SUBJECT,
    threading_rlock.SUBJECT,
    multiprocessing_lock.SUBJECT,
    multiprocessing_rlock.SUBJECT,
    posix_ipc_semaphore.SUBJECT,
    flock.SUBJECT,
    file_lock.SUBJECT,
    empty_type.SUBJECT,
    empty.SUBJECT,
)


def subject(name: str) -> Subject:
    """The subject of that name; LookupError."""
    for found in SUBJECTS:
        if found.name == name:
            return found
    raise LookupError(f"no subject {name!r}; there are {', '.join(s.name for s in SUBJECTS)}")
