"""Looking at domains from outside: who holds what, who waits, and for how long.

An observer is no participant.  It reads the segment as a file, takes no lock of it, registers no
vCPU, and has nothing mapped, so neither a look nor the observer's death can be noticed by those
whom it looks at, except by the processor time that it takes.
"""

from __future__ import annotations

from pylocks.observe.looks import Looks
from pylocks.observe.model import (
    Holder,
    Insider,
    Lock,
    Outsider,
    Snapshot,
    SyncObject,
    VCpu,
    Waiter,
    plain,
)
from pylocks.observe.places import Place, anonymous_places, named_places, place_of
from pylocks.observe.snap import snapshot

__all__ = [
    "Holder",
    "Insider",
    "Lock",
    "Looks",
    "Outsider",
    "Place",
    "Snapshot",
    "SyncObject",
    "VCpu",
    "Waiter",
    "anonymous_places",
    "named_places",
    "place_of",
    "plain",
    "snapshot",
]
