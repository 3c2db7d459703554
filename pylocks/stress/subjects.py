"""What the stress program can put under load: every slow path of the core, and a peer."""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from pylocks.ops import HOSTED, choices

#: The name under which multiprocessing.Lock stands beside the slow paths.
PEER = "mp"


@dataclass(frozen=True)
class Subject:
    """One kind of lock."""

    name: str  #: a slow path of pylocks, or PEER
    meaning: str
    protocol: str | None  #: "native" or "enlightened"; None: not a lock of pylocks
    sound: bool  #: False: broken on purpose, runs only when asked for

    @property
    def collapses(self) -> bool:
        """Whether waiters may be stuck behind a preempted one when the row's time is over.

        That is what a native lock is expected to do, and nothing can be expected
        of a broken one.
        """
        return self.protocol == "native" or not self.sound

    def has(self, policy: str) -> bool:
        """Whether there are locks of this kind with that policy; the peer has none, and runs beside all."""
        return policy == "fifo" or self.protocol != "native"

    @property
    def label(self) -> str:
        """What it is called in tables and pictures."""
        return "multiprocessing.Lock" if self.protocol is None else self.name


def subjects() -> dict[str, Subject]:
    """All subjects by name: the registry of the core, in its order, then the peer."""
    found = {
        choice.name: Subject(choice.name, choice.meaning, choice.protocol, choice.sound)
        for choice in choices("lock_spinning")
        if choice.available
    }
    found[PEER] = Subject(PEER, "multiprocessing.Lock, for comparison", protocol=None, sound=True)
    return found


def environment(subject: Subject, base: Mapping[str, str]) -> dict[str, str]:
    """``base`` with what makes pylocks take this subject's slow path and count events.

    Other ops that the user has chosen in PYLOCKS_OPS, and PYLOCKS_PATCH, stay as they are.
    """
    result = dict(base)
    if subject.protocol is None:
        return result
    forced = ("lock_spinning", "lock_event")
    kept = [
        part
        for part in base.get("PYLOCKS_OPS", "").split(",")
        if part.strip() and part.partition("=")[0].strip() not in forced
    ]
    result["PYLOCKS_OPS"] = ",".join([*kept, f"lock_spinning={subject.name}", "lock_event=counters"])
    result["PYLOCKS_PROTOCOL"] = subject.protocol
    return result


@dataclass(frozen=True)
class Opened:
    """The locks of one row, and the domain they live in."""

    locks: Sequence[Any]
    domain: Any | None  #: None: locks of the peer

    @property
    def ticketed(self) -> bool:
        """Whether a holder can read the ticket under which it was let in."""
        return self.domain is not None


def open_locks(subject: Subject, locks: int, processes: int, policy: str) -> Opened:
    """Create ``locks`` locks that children forked from now on share.

    Raises what pylocks.Domain and pylocks.TicketLock raise.
    """
    if subject.protocol is None:
        context = multiprocessing.get_context("fork")
        return Opened([context.Lock() for _ in range(locks)], None)
    import pylocks

    # One vCPU a worker, and some for the row process itself; a bounded lock takes the room of two.
    room = 2 * locks if policy == "bounded" else locks
    domain = pylocks.Domain(vcpus=processes + 8, locks=room)
    return Opened([pylocks.TicketLock(domain=domain, policy=policy) for _ in range(locks)], domain)


def hypervisor(subject: Subject, opened: Opened) -> AbstractContextManager[Any]:
    """What serves the locks of a subject that is nothing without it, in a process of its own."""
    if subject.name != HOSTED or opened.domain is None:
        return nullcontext()
    import pylocks

    return pylocks.Hypervisor(opened.domain)
