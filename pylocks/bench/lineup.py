"""Who contends: one row for each subject in each of its variants.

pylocks chooses its slow path once in the life of a process, so a variant is a subject, what its
processes are told in the environment, and a policy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .settings import Setting

__all__ = ["C_LINEUP", "Contender", "contender"]


@dataclass(frozen=True)
class Contender:
    """One row."""

    name: str
    subject: str
    """Of csubjects or subjects."""
    order: str
    """"fifo", "bounded", "barging", or "none" for what does not lock."""
    variables: Mapping[str, str] = field(default_factory=dict)
    policy: str = "fifo"
    """Of pylocks' lock."""
    collapses: bool = False
    """Its waiters may be stuck behind a preempted one when the time is over, and are killed then."""

    @property
    def setting(self) -> Setting:
        """What its processes are told."""
        return Setting(self.name, self.variables)


def _slow_path(name: str) -> dict[str, str]:
    return {"PYLOCKS_PROTOCOL": "enlightened", "PYLOCKS_OPS": f"lock_spinning={name}"}


NATIVE = {"PYLOCKS_PROTOCOL": "native"}

C_LINEUP: tuple[Contender, ...] = (
    Contender("pylocks", "pylocks", "fifo"),
    Contender("pylocks:native", "pylocks", "fifo", NATIVE, collapses=True),
    Contender("pylocks:yield", "pylocks", "fifo", _slow_path("yield")),
    Contender("pylocks:futex", "pylocks", "fifo", _slow_path("futex")),
    Contender("pylocks:bounded", "pylocks", "bounded", _slow_path("futex"), policy="bounded"),
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


def contender(name: str, lineup: tuple[Contender, ...] = C_LINEUP) -> Contender:
    """The row of that name; LookupError."""
    for found in lineup:
        if found.name == name:
            return found
    raise LookupError(f"no subject {name!r}; there are {', '.join(row.name for row in lineup)}")
