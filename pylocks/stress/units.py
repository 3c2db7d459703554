"""Times and numbers as people write and read them."""

from __future__ import annotations

import re

_UNITS = {"": 1, "ns": 1, "us": 1_000, "µs": 1_000, "μs": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|µs|μs|ms|s|)")


def parse_ns(text: str) -> int:
    """Nanoseconds from ``2000``, ``2us``, ``1.5ms`` ...

    Raises ValueError, with a message fit for a user, if it is not a duration.
    """
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a duration; write nanoseconds or a unit: 2000, 2us, 1.5ms")
    return round(float(found[1]) * _UNITS[found[2]])


def duration(ns: float | None) -> str:
    """A wait to three digits: ``830 ns``, ``1.24 ms``; an en dash for None."""
    if ns is None:
        return "–"
    for limit, unit, size in ((1e3, "ns", 1.0), (1e6, "µs", 1e3), (1e9, "ms", 1e6)):
        if ns < 0.9995 * limit:
            return f"{_digits(ns / size)} {unit}"
    return f"{_digits(ns / 1e9)} s"


def count(number: float | None) -> str:
    """A count or rate to three digits: ``31``, ``8.4 k``, ``1.32 M``; an en dash for None."""
    if number is None:
        return "–"
    for limit, unit, size in ((1e3, "", 1.0), (1e6, " k", 1e3), (1e9, " M", 1e6)):
        if number < 0.9995 * limit:
            return f"{_digits(number / size)}{unit}"
    return f"{_digits(number / 1e9)} G"


def factor(number: float) -> str:
    """An overcommit factor: ``8x``, ``1.5x``."""
    return f"{number:g}x"


def _digits(value: float) -> str:
    if value == int(value) and value < 1000:
        return str(int(value))
    if value < 9.995:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"
