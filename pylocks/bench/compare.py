"""A run beside a saved one.

They were not interleaved, so what drifted in between is in the figures; to take some of it out, every
rate is first divided by that of its cell's reference in the same run.  For a comparison that is
interleaved, see --against.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .report import Table
from .results import SCHEMA, Samples, Spread, ratio, typical
from .scenarios import SCENARIOS, scenario

__all__ = ["BadFileError", "load", "tables"]


class BadFileError(ValueError):
    """A file is no saved run that can be compared; the message says why."""


def load(path: Path) -> dict[str, Any]:
    """A saved run; BadFileError."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadFileError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise BadFileError(f"{path} is no JSON: {error}") from error
    if not isinstance(result, dict) or not {"schema", "scenarios", "options", "host"} <= result.keys():
        raise BadFileError(f"{path} was not written by pylocks bench --json")
    if result["schema"] != SCHEMA:
        raise BadFileError(f"{path} has format {result['schema']}, this pylocks reads {SCHEMA}: run it again")
    return result


def tables(now: Mapping[str, Any], saved: Mapping[str, Any], name: str) -> Iterator[Table]:
    """A table for each scenario that both have."""
    known = {one.name for one in SCENARIOS}
    for one in now["scenarios"]:
        if one in known and one in saved["scenarios"]:
            mine, theirs = now["scenarios"][one], saved["scenarios"][one]
            rows = tuple(_rows(one, mine, theirs))
            if rows:
                header = ("", "now", "saved", "now / saved", "by the reference", "max now / saved")
                yield Table(f"{one}: this run against {name}", header, rows)


def _rows(one: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    for cell, samples in mine["cells"].items():
        before: Samples = theirs["cells"].get(cell, {})
        reference = mine["loads"][cell].get("reference") or scenario(one).reference
        for subject in samples:
            if subject not in before:
                continue
            now, then = typical(samples[subject], "rate"), typical(before[subject], "rate")
            related = [_related(found, subject, reference) for found in (samples, before)]
            longest = [typical(found[subject], "max") for found in (samples, before)]
            yield (
                f"{cell} {subject}",
                _count(now),
                _count(then),
                _quotient(now, then),
                _quotient(*related),
                _quotient(*longest),
            )


def _related(samples: Samples, subject: str, reference: str) -> Spread | None:
    return ratio(samples[subject], samples[reference], "rate") if reference in samples else None


def _count(found: Spread | None) -> str:
    from pylocks.stress import units

    return "–" if found is None else units.count(found.median)


def _quotient(above: Spread | None, below: Spread | None) -> str:
    if above is None or below is None or not below.median:
        return "–"
    return f"{above.median / below.median:.2f}"
