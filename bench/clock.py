"""A clock for pytest-benchmark that goes as far as it is told."""

from __future__ import annotations


class Clock:
    """What was measured in interleaved rounds is replayed on it, a round for each call."""

    def __init__(self) -> None:
        self._now = 0.0

    def __call__(self) -> float:
        """The time, seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self._now += seconds
