"""Fair, fast locks between processes: ticket locks with a user-space hypervisor."""

from __future__ import annotations

from pathlib import Path

# _lock first: it says so where pylocks can't be used, before others fail in ways of their own.
from pylocks import _lock as _lock
from pylocks import errors
from pylocks.barrier import Barrier
from pylocks.condition import Condition
from pylocks.domain import Domain
from pylocks.errors import *  # noqa: F403
from pylocks.event import Event
from pylocks.hypervisor import Hypervisor
from pylocks.locks import LockArray, TicketLock, TicketRLock
from pylocks.monitor import PreemptionMonitor
from pylocks.ops import Op, ops
from pylocks.rwlock import RWLock
from pylocks.semaphore import BoundedSemaphore, Semaphore
from pylocks.views import Owner, Stats, VCpu

__version__ = "0.1.0"

__all__ = [
    "Barrier",
    "BoundedSemaphore",
    "Condition",
    "Domain",
    "Event",
    "Hypervisor",
    "LockArray",
    "Op",
    "Owner",
    "PreemptionMonitor",
    "RWLock",
    "Semaphore",
    "Stats",
    "TicketLock",
    "TicketRLock",
    "VCpu",
    "api_address",
    "get_include",
    "ops",
    *errors.__all__,
]


def get_include() -> str:
    """The directory of <pylocks.h>, for C and Cython extensions that use the locks."""
    here = Path(__file__).resolve().parent
    for path in (here / "include", here.parent / "csrc" / "include"):
        if (path / "pylocks.h").exists():
            return str(path)
    raise FileNotFoundError(f"pylocks.h was not installed beside {here}: install pylocks again")


def api_address() -> int:
    """What plk_register of <pylocks.h> needs in a module that is no Python extension."""
    from pylocks._core import lib

    return int(lib.plk_api_address())
