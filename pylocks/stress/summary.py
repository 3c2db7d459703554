"""What a run shows, in plain sentences."""

from __future__ import annotations

from typing import Any

from . import units
from .results import Row


def sentences(result: dict[str, Any]) -> list[str]:
    """What the rows at the highest overcommit say about the locks; empty without rows."""
    rows = [row for row in result["rows"] if row["ended"] not in ("failed", "interrupted")]
    if not rows:
        return []
    factor = max(row["overcommit"] for row in rows)
    top = {row["slow_path"]: row for row in rows if row["overcommit"] == factor and not row["violations"]}
    if not top:
        return []
    cpus = len(result["host"]["affinity"])
    crowd = _many(next(iter(top.values()))["processes"], "process", "processes")
    where = f"At {units.factor(round(factor, 2))} overcommit ({crowd} on {_many(cpus, 'CPU', 'CPUs')})"
    native = [row for row in top.values() if row["protocol"] == "native"]
    enlightened = [row for row in top.values() if row["protocol"] == "enlightened"]
    peers = [row for row in top.values() if row["protocol"] is None]
    said = []
    if native and enlightened:
        said.append(f"{where} {_compared(enlightened, native[0])}.")
    else:
        shown = enlightened or native or peers
        rates = [f"{row['label']} made {units.count(row['acquisitions_per_s'])}" for row in shown]
        waits = [_longest(row) for row in shown]
        said.append(f"{where} {_join(rates)} acquisitions a second; the longest wait was {_join(waits)}.")
    if peers and enlightened:
        said.append(_beside(enlightened, peers[0]))
    return said


def verdict_line(result: dict[str, Any]) -> str:
    """The verdict and what it rests on, in one line."""
    done = sum(row["acquisitions"] for row in result["rows"])
    seed = f"seed {result['seed']}"
    if result["verdict"] == "fail":
        kinds = ", ".join(f"{kind} {number:,}" for kind, number in result["violations_by_kind"].items())
        return f"FAIL: {result['violations']:,} violations in {done:,} acquisitions ({kinds}; {seed})"
    if result["verdict"] == "incomplete":
        return f"INCOMPLETE: no violation in {done:,} acquisitions, but rows are missing ({seed})"
    return f"PASS: no violation in {done:,} acquisitions ({seed})"


def finding_lines(result: dict[str, Any], most: int = 5) -> list[str]:
    """What is known about the violations, one line for each kind in a row of the table."""
    lines = []
    for row in result["rows"]:
        first = {finding["kind"]: finding for finding in reversed(row["findings"])}
        for kind in row["violations_by_kind"]:
            finding = first[kind]
            about = ", ".join(
                f"{key} {value}" for key, value in finding.items() if key not in ("kind", "text", "at_s")
            )
            last = finding["text"].strip().splitlines()[-1] if finding["text"].strip() else ""
            lines.append(
                f"{row['slow_path']} at {units.factor(row['overcommit'])}: {kind}: {last}"
                + (f" ({about})" if about else "")
            )
    more = len(lines) - most
    return lines[:most] + ([f"... and {more} more; --json has them all"] if more > 0 else [])


def _many(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _times(ratio: float) -> str:
    if ratio >= 9.95:
        return f"{ratio:,.0f}"
    return f"{ratio:.1f}" if ratio >= 0.095 else f"{ratio:.2g}"


def _ratio(row: Row, base: Row) -> float:
    """Of rates; a row that made none counts as one that made a single acquisition."""
    least = 1 / max(base["seconds"], 1e-9)
    return float(row["acquisitions_per_s"] / max(base["acquisitions_per_s"], least))


def _join(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def _compared(rows: list[Row], base: Row) -> str:
    first, *others = [f"{row['label']} {{}}{_times(_ratio(row, base))}" for row in rows]
    made = _join([first.format("made "), *(other.format("") for other in others)])
    waits = _join([_longest(row) for row in [base, *rows]])
    return f"{made} times the acquisitions of {base['label']}; the longest wait was {waits}"


def _beside(rows: list[Row], peer: Row) -> str:
    made = _join([f"{_times(_ratio(peer, row))} times those of {row['label']}" for row in rows])
    return (
        f"{peer['label']}, which lets latecomers pass, made {made}; "
        f"its longest wait was {units.duration(peer['wait_ns']['max'])}."
    )


def _longest(row: Row) -> str:
    return f"{units.duration(row['wait_ns']['max'])} with {row['label']}"
