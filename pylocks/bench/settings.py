"""Process settings: what a process is told when it first attaches, and never again.

The choice of ops is made once a process, so each setting needs a process of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["DEFAULT", "SETTINGS", "Setting"]

PREFIX = "PYLOCKS_"


@dataclass(frozen=True)
class Setting:
    """One row of the table of settings."""

    name: str
    variables: Mapping[str, str]

    def environment(self) -> dict[str, str]:
        """This process's environment with the setting instead of what it says of pylocks."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
        return {**kept, **self.variables}


DEFAULT = Setting("enlightened, patched", {"PYLOCKS_PROTOCOL": "enlightened"})
"""What pylocks does if nobody says otherwise; the bars are meant for it."""

SETTINGS: tuple[Setting, ...] = (
    DEFAULT,
    Setting("enlightened, unpatched", {"PYLOCKS_PROTOCOL": "enlightened", "PYLOCKS_PATCH": "off"}),
    Setting("a fence in unlock", {"PYLOCKS_PROTOCOL": "enlightened", "PYLOCKS_OPS": "unlock_barrier=fence"}),
    Setting("events counted", {"PYLOCKS_PROTOCOL": "enlightened", "PYLOCKS_OPS": "lock_event=counters"}),
    Setting("events traced", {"PYLOCKS_PROTOCOL": "enlightened", "PYLOCKS_OPS": "lock_event=trace"}),
    Setting("native, patched", {"PYLOCKS_PROTOCOL": "native"}),
    Setting("native, unpatched", {"PYLOCKS_PROTOCOL": "native", "PYLOCKS_PATCH": "off"}),
)
