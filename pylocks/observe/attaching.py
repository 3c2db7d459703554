"""Attaching a domain from outside: for what copies of its words do not show."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from pylocks import domain, errors, segment
from pylocks.domain import Domain
from pylocks.observe.places import Place, place_of
from pylocks.observe.snap import snapshot

__all__ = ["attached", "named", "unused"]

_DESCRIPTOR = re.compile(r"/proc/(\d+)/fd/(\d+)")


def named(which: str) -> Place:
    """The domain of that name, or after "@" of a uid that begins so; UnknownDomainError, ValueError."""
    if not which.startswith("@"):
        segment.path_of(which)  # and no path
    return place_of(which)


def unused(place: Place) -> bool:
    """Nobody uses it: whoever attached it would free what its last users died holding.  DomainError."""
    return snapshot(place).abandoned


@contextmanager
def attached(place: Place) -> Iterator[Domain]:
    """The domain, whatever its mode, with a name or without; closed again if it was not open here.

    Raises what observe.snapshot() does; and DomainError if its last users died holding locks: attaching would
    free them, and the next to come would not be told.
    """
    fd = place.open()
    try:
        if place.name is not None:
            # Attaching then finds others there, and resets nothing, whoever ends meanwhile (pylocks.attach).
            try:
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise errors.DomainError(
                    f"{place.where} is being made, reset or removed: look again"
                ) from None
        key = segment.inspect(fd, place.where).key
        known = domain._attached(key)
        if known is None:
            _refuse_the_dead(place)
            opened = _open(place, key, os.fstat(fd).st_mode & 0o666 | 0o600)
    finally:
        os.close(fd)
    if known is not None:
        yield known
        return
    with opened:
        yield opened


def _refuse_the_dead(place: Place) -> None:
    found = snapshot(place)
    died = [lock.label for lock in found.locks if lock.busy or lock.owner_died]
    died += [each.label for each in found.objects if each.half_done]
    if died and not any(vcpu.alive for vcpu in found.vcpus):
        raise errors.DomainError(
            f"domain {found.label!r}: its last users died holding {', '.join(died[:3])}"
            f"{' and others' if len(died) > 3 else ''}; it is looked at again once a program uses it"
        )


def _open(place: Place, key: segment.Key, mode: int) -> Domain:
    if place.name is not None:
        return Domain(place.name, create=False, mode=mode)
    use = _DESCRIPTOR.fullmatch(place.path)
    if use is None:
        raise errors.UnknownDomainError(2, f"{place.where} is not open in a process of this user")
    return domain.from_token(("", key, int(use[1]), int(use[2]), mode))
