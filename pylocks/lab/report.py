"""What is said of experiments: tables for people, which the page shows as well."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from pylocks.bench.report import Table, print_tables
from pylocks.bench.results import typical
from pylocks.stress import host, units

from .plan import AIMS
from .scenarios import EXPERIMENTS, NATIVE, WORK

__all__ = ["COLUMNS", "label", "load", "shape_rows", "show", "show_list", "subject_rows", "summary"]


def label(subject: str) -> str:
    """As people call it."""
    return "no lock" if subject == WORK else subject.partition(":")[2]


def _number(write: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda value: "–" if value is None else write(value)


COLUMNS: tuple[tuple[str, str, str, Callable[[float | None], str]], ...] = (
    ("rate", "acq/s", "acquisitions a second, of all vCPUs together", units.count),
    ("cost", "CPU/acq", "CPU time of all vCPUs for each acquisition", units.duration),
    ("waiting", "waiting", "the part of the CPU time that is not the work itself",
     _number(lambda value: f"{value:.1%}")),
    ("cpu", "CPUs", "CPU seconds of all vCPUs a second", _number(lambda value: f"{value:.2f}")),
    ("max", "max wait", "the longest wait", units.duration),
    ("stolen", "stolen", "the part of the vCPUs' time in which they were stopped",
     _number(lambda value: f"{value:.0%}")),
    ("slices", "stops", "times that somebody was stopped for a slice, or a quota was used up",
     _number(lambda value: f"{value:.0f}")),
    ("missed", "missed", "times that another vCPU was stopped than is meant, and went on at once",
     _number(lambda value: f"{value:.0f}")),
    ("burnt", "burnt", "CPUs that all vCPUs used while the one that is meant was stopped",
     _number(lambda value: f"{value:.3f}")),
    ("passed", "passed", "acquisitions a second meanwhile", units.count),
)  # fmt: skip
"""(figure of a sample, title, meaning, how it is written)."""


def subject_rows(samples: Mapping[str, Sequence[Mapping[str, Any]]]) -> Iterator[tuple[str, list[str], str]]:
    """(subject, its figures, a remark) of each; medians over the rounds."""
    native = typical(samples.get(NATIVE, ()), "cost")
    for subject, mine in samples.items():
        medians = {figure: typical(mine, figure) for figure, *_ in COLUMNS}
        cells = [
            write(None if (found := medians[figure]) is None else found.median)
            for figure, _, _, write in COLUMNS
        ]
        cost = medians["cost"]
        against = "–" if cost is None or not native else f"{_digits(cost.median / native.median)}"
        killed = max(sample["killed"] for sample in mine)
        yield subject, [*cells[:2], against, *cells[2:]], f"{killed} stuck" if killed else ""


def _digits(value: float) -> str:
    """A ratio: small ones as people say them."""
    if 0 < value < 0.01:
        return f"1/{1 / value:,.0f}"
    return f"{value:.2g}" if value < 100 else f"{value:,.0f}"


HEADER = (
    "",
    *(title for _, title, _, _ in COLUMNS[:2]),
    "/ native",
    *(title for _, title, _, _ in COLUMNS[2:]),
)


def load(cell: Mapping[str, Any], cpus: int) -> str:
    """What a load is."""
    n = cell["processes"]
    text = (
        f"{n} vCPUs on {cpus} CPU{'s' * (cpus != 1)}{', one on each' * cell['pin']}, "
        f"{units.duration(cell['inside_ns'])} under the lock and {units.duration(cell['outside_ns'])} between"
    )
    if cell["aim"] == "nobody":
        return text
    slice_ns = cell["steal"] * cell["period_ns"]
    return f"{text}; {units.duration(slice_ns)} of each {units.duration(cell['period_ns'])} stolen"


def shape_rows(rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str, str, str]]:
    """(claim, what was found, limit, what became of it)."""
    for row in rows:
        bar = row["bar"]
        write = next(write for figure, _, _, write in COLUMNS if figure == bar["measure"])
        if bar["against"]:
            write = _number(lambda value: f"{_digits(value)} of {label(bar['against'][0])}'s")  # noqa: B023
        sign, limit = ("≥", bar["at_least"]) if bar["at_least"] is not None else ("≤", bar["at_most"])
        found = "–" if row["figure"] is None else write(row["figure"]["median"])
        said = {True: "as expected", False: "NOT AS EXPECTED", None: f"not judged: {row['why']}"}[row["met"]]
        yield f"{bar['cell']}: {row['text']}", found, f"{sign} {limit:g}", said


def summary(result: Mapping[str, Any]) -> str:
    """What became of the claims, in a sentence."""
    met = [row["met"] for row in result["shape"]]
    text = f"{met.count(True)} of {len(met)} claims are as expected"
    if met.count(False):
        text += f", {met.count(False)} not"
    if met.count(None):
        text += f", {met.count(None)} could not be judged"
    return text


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """A table for each load, and the shape of each experiment."""
    cpus = len(result["options"]["cpus"])
    for name, found in result["scenarios"].items():
        for cell, samples in found["cells"].items():
            rows = tuple((label(subject), *cells, remark) for subject, cells, remark in subject_rows(samples))
            yield Table(f"{name} {cell}: {load(found['loads'][cell], cpus)}", (*HEADER, ""), rows)
        shape = [row for row in result["shape"] if row["bar"]["scenario"] == name]
        if shape:
            styles = tuple({True: "green", False: "bold red", None: "dim"}[row["met"]] for row in shape)
            title = f"{name}, expected: {experiment_of(name).expected}"
            yield Table(title, ("", "found", "limit", ""), tuple(shape_rows(shape)), styles)


def experiment_of(name: str) -> Any:
    """Its row; the result may be of a file."""
    return next(one for one in EXPERIMENTS if one.name == name)


def show(result: Mapping[str, Any], to: IO[str]) -> None:
    """All of it."""
    options = result["options"]
    lines = [
        f"pylocks {result['pylocks']} on {host.line(result['host'])}, {result['compiler']}",
        f"Medians of {options['rounds']} interleaved rounds, slices of {options['seconds']:g} s. Again: "
        f"{result['command']}",
    ]
    print_tables(lines, list(tables(result)), result["warnings"], to)
    print(f"\n{summary(result)}.", file=to)


def show_list(to: IO[str]) -> None:
    """The table of experiments."""
    for one in EXPERIMENTS:
        print(f"{one.name}: {one.meaning}", file=to)
        print(f"    after     {one.source}", file=to)
        print(f"    stolen    {AIMS[one.aim]}", file=to)
        print(f"    expected  {one.expected}", file=to)
        for claim in one.claims:
            print(f"              {claim.bar.cell}: {claim.text}", file=to)
