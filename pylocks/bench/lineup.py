"""Who takes part: one row for each subject in each of its variants.

pylocks chooses its slow path once in the life of a process, so a variant is a subject, what its
processes are told in the environment, and a policy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .settings import Setting

__all__ = ["C_LINEUP", "PYTHON_LINEUP", "Contender", "contenders"]


@dataclass(frozen=True)
class Contender:
    """One row."""

    name: str
    subject: str
    """Of csubjects, or of subjects."""
    order: str
    """"fifo", "bounded", "barging", or "none" for what does not lock."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What its processes find in the environment, instead of what this one's says of pylocks."""
    policy: str = "fifo"
    """Of pylocks' lock."""
    collapses: bool = False
    """Its waiters may be stuck behind a preempted one when the time is over, and are killed then."""
    module: str = "host"
    """Whose main() its process runs: "host" for C, "pyhost" for Python."""
    locks: int = 1

    @property
    def setting(self) -> Setting:
        """What its processes are told."""
        return Setting(self.name, self.variables)

    @property
    def ours(self) -> bool:
        """Whether it is a lock of pylocks."""
        return self.subject.startswith("pylocks")


def _slow_path(name: str) -> dict[str, str]:
    return {"PYLOCKS_PROTOCOL": "enlightened", "PYLOCKS_OPS": f"lock_spinning={name}"}


NATIVE = {"PYLOCKS_PROTOCOL": "native"}
COUNTED = {"PYLOCKS_PROTOCOL": "enlightened", "PYLOCKS_OPS": "lock_spinning=futex,lock_event=counters"}

C_LINEUP: tuple[Contender, ...] = (
    Contender("pylocks", "pylocks", "fifo"),
    Contender("pylocks:native", "pylocks", "fifo", NATIVE, collapses=True),
    Contender("pylocks:yield", "pylocks", "fifo", _slow_path("yield")),
    Contender("pylocks:futex", "pylocks", "fifo", _slow_path("futex")),
    Contender("pylocks:bounded", "pylocks", "bounded", _slow_path("futex"), policy="bounded"),
    Contender("pylocks:counted", "pylocks", "fifo", COUNTED),
    Contender("ticket_spin", "ticket_spin", "fifo", collapses=True),
    Contender("ticket_yield", "ticket_yield", "fifo"),
    Contender("ttas", "ttas", "barging", collapses=True),
    Contender("adaptive", "adaptive", "barging"),
    Contender("pthread_mutex", "pthread_mutex", "barging"),
    Contender("pthread_robust", "pthread_robust", "barging"),
    Contender("pthread_pi", "pthread_pi", "barging"),
    Contender("sem_t", "sem_t", "barging"),
    Contender("empty", "empty", "none"),
)

ARRAY, STRIPES = 1_000_000, 1024


def _python(
    name: str, subject: str, order: str, variables: Mapping[str, str] | None = None, **more: Any
) -> Contender:
    return Contender(name, subject, order, variables or {}, module="pyhost", **more)


PYTHON_LINEUP: tuple[Contender, ...] = (
    _python("TicketLock", "pylocks.TicketLock", "fifo"),
    _python("TicketLock:native", "pylocks.TicketLock", "fifo", NATIVE, collapses=True),
    _python("TicketLock:bounded", "pylocks.TicketLock", "bounded", _slow_path("futex"), policy="bounded"),
    _python("multiprocessing.Lock", "multiprocessing.Lock", "barging"),
    _python("posix_ipc.Semaphore", "posix_ipc.Semaphore", "barging"),
    _python("flock", "flock", "barging"),
    _python("filelock", "filelock", "barging"),
    _python("threading.Lock", "threading.Lock", "barging"),
    _python("LockArray", "pylocks.TicketLock", "fifo", locks=ARRAY),
    _python("family", "pylocks.TicketLock", "fifo"),
    _python("multiprocessing", "multiprocessing.Lock", "barging"),
    _python("RWLock", "pylocks.RWLock", "fifo"),
    _python("one TicketLock", "pylocks.TicketLock", "fifo"),
    _python(f"{STRIPES} mp.Locks", "multiprocessing.Lock", "barging", locks=STRIPES),
)


def contenders(names: Iterable[str]) -> tuple[Contender, ...]:
    """The rows of these names; LookupError."""
    known = {row.name: row for row in (*C_LINEUP, *PYTHON_LINEUP)}
    for name in names:
        if name not in known:
            raise LookupError(f"no subject {name!r}; there are {', '.join(known)}")
    return tuple(known[name] for name in names)
