"""From what the workers wrote to a row of results, and from rows to a verdict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .shared import Sample, bucket, bucket_floor

Row = dict[str, Any]
SCHEMA = 1
#: The share of the CPUs above which others disturb a row.
DISTURBED = 0.15

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


def warnings(rows: Sequence[Row], cpus: int) -> list[str]:
    """Reasons to doubt figures: each row's own, and what others did to all of them."""
    said = [f"{row['label']} at {row['overcommit']:g}x: {text}" for row in rows for text in row["warnings"]]
    others = [row["others_cpus"] for row in rows if (row["others_cpus"] or 0) > DISTURBED * cpus]
    if others:
        said.append(
            f"other programs used up to {max(others):.2f} CPUs during {len(others)} of {len(rows)} rows"
        )
    stolen = [row["stolen_share"] for row in rows if (row["stolen_share"] or 0) > DISTURBED]
    if stolen:
        share, number = max(stolen), len(stolen)
        said.append(f"the hypervisor took up to {share:.0%} of the CPU time of {number} of {len(rows)} rows")
    return said


def verdict(rows: Sequence[Row], planned: int) -> str:
    """``fail`` after any violation, ``incomplete`` if rows are missing or cut short, else ``pass``."""
    if tally(rows):
        return "fail"
    if len(rows) < planned or any(row["ended"] in ("interrupted", "short") for row in rows):
        return "incomplete"
    return "pass"
