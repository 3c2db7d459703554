"""From what the workers wrote to a row of results, and from rows to a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .shared import Sample, bucket, bucket_floor

Row = dict[str, Any]
SCHEMA = 1

#: Violations found by looking at the whole row.
LOST_UPDATE, LOST_WAITER, WORKER_DIED, ROW_FAILED = "lost_update", "lost_waiter", "worker_died", "row_failed"


def jain(counts: Sequence[int]) -> float | None:
    """Jain's index of fairness: 1 if all are equal, 1/n if one has everything; None without any."""
    squares = sum(count * count for count in counts)
    return sum(counts) ** 2 / (len(counts) * squares) if squares else None


def merge(histograms: Iterable[Sequence[int]]) -> list[int]:
    """The sum of histograms of the same buckets."""
    return [sum(column) for column in zip(*histograms, strict=True)]


def percentiles(waits: Sequence[int], wanted: Mapping[str, float], longest: int) -> dict[str, int | None]:
    """Waits, ns, that the given fractions of all waits do not exceed, within 1.6 %.

    None for each if there was no wait.
    """
    total = sum(waits)
    if total == 0:
        return dict.fromkeys(wanted)
    found: dict[str, int | None] = {}
    for name, fraction in wanted.items():
        rank = max(1, math.ceil(fraction * total))
        seen = 0
        for number, count in enumerate(waits):
            seen += count
            if seen >= rank:
                middle = (bucket_floor(number) + bucket_floor(number + 1)) // 2
                found[name] = min(middle, longest)
                break
    return found


def sparse(waits: Sequence[int]) -> list[list[int]]:
    """The buckets that counted something: [from ns, below ns, count]."""
    return [
        [bucket_floor(number), bucket_floor(number + 1), count] for number, count in enumerate(waits) if count
    ]


def waits_of(samples: Sequence[Sample], unfinished: Sequence[int]) -> Row:
    """The part of a row about waiting.

    A waiter that was killed waited at least as long as it had until then, and
    is counted with that: leaving it out would hide just the longest waits.
    """
    waits = merge(sample.waits for sample in samples)
    for ns in unfinished:
        waits[bucket(ns)] += 1
    longest = max([sample.wait_max for sample in samples] + list(unfinished))
    levels = percentiles(waits, {"p50": 0.5, "p99": 0.99, "p999": 0.999}, longest)
    total = sum(waits)
    mean = (sum(sample.wait_sum for sample in samples) + sum(unfinished)) // total if total else None
    return {
        "wait_ns": {**levels, "max": longest if total else None, "mean": mean},
        "wait_histogram": sparse(waits),
        "unfinished_waits": len(unfinished),
    }


def tally(rows: Iterable[Row]) -> dict[str, int]:
    """Violations of all rows by kind."""
    total: dict[str, int] = {}
    for row in rows:
        for kind, number in row["violations_by_kind"].items():
            total[kind] = total.get(kind, 0) + number
    return total


def verdict(rows: Sequence[Row], planned: int) -> str:
    """``fail`` after any violation, ``incomplete`` if rows are missing or cut short, else ``pass``."""
    if tally(rows):
        return "fail"
    if len(rows) < planned or any(row["ended"] == "interrupted" for row in rows):
        return "incomplete"
    return "pass"
