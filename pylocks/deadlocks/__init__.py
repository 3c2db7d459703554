"""Who waits for himself through others: finding it, and being told before it happens."""

from __future__ import annotations

from .graph import Cycle, Member, find

__all__ = ["Cycle", "Member", "find"]
