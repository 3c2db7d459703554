"""Tables for people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from pylocks.stress import host, units

from .results import Samples, Spread, ratio, typical
from .scenarios import scenario
from .uncontended.cases import OURS

__all__ = ["Table", "print_tables", "show", "tables"]

WIDTH = 160
"""Where there is no terminal."""

Load = Mapping[str, Any]


@dataclass(frozen=True)
class Table:
    """Text in rows and columns; the first column is to the left, all others to the right."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    styles: tuple[str, ...] = ()
    """Of the rows, for rich."""


def _number(text: Callable[[float], str]) -> Callable[[float | None], str]:
    return lambda value: "–" if value is None else text(value)


def _fairness(value: float) -> str:
    """Three digits, and 1 only for what is 1: the bars lie close to it."""
    return f"{value:.3f}"


FIGURES: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("rate", "acq/s", units.count),
    ("jain", "Jain", _number(_fairness)),
    ("p50", "p50", units.duration),
    ("p99", "p99", units.duration),
    ("p999", "p99.9", units.duration),
    ("max", "max", units.duration),
    ("cpu", "CPUs", _number(lambda value: f"{value:.2f}")),
    ("switches", "switches", _number(lambda value: f"{value:.3g}")),
)
"""(figure of a sample, title, how it is written); they stand together in every row."""


def tables(result: Mapping[str, Any]) -> Iterator[Table]:
    """A table for each cell, and what pylocks counted."""
    other = result["options"]["against"]
    for name, found in result["scenarios"].items():
        for cell, samples in found["cells"].items():
            if name == "uncontended":
                yield _uncontended(cell, samples, found["loads"][cell])
            else:
                yield _contended(name, cell, samples, found["loads"][cell])
            if other is not None:
                yield from _twins(f"{name} {cell}", samples, other)
        yield from _events(name, found["cells"])


def _contended(name: str, cell: str, samples: Samples, load: Load) -> Table:
    one = scenario(name)
    reference = one.reference
    header = [title if figure != "rate" else one.rate for figure, title, _ in FIGURES]
    rows, styles = [], []
    for subject, mine in samples.items():
        medians = {figure: typical(mine, figure) for figure, _, _ in FIGURES}
        cells = [
            write(None if (found := medians[figure]) is None else found.median)
            for figure, _, write in FIGURES
        ]
        against = ratio(mine, samples[reference], "rate") if reference in samples else None
        remark = _remark(subject, mine)
        rows.append((subject, *cells, *_spread(against, 2), remark))
        styles.append("red" if "NOT" in remark else "yellow" if remark else "")
    return Table(
        f"{name} {cell}: {_describe(load)}; times are {one.wait} times",
        ("", *header, f"/ {reference}", "", ""),
        tuple(rows),
        tuple(styles),
    )


GAMES = {
    "notify": "half of them put into a queue of 8 and half take from it, under two conditions of a lock",
    "event": "in a circle: each waits for its event and sets the next one's",
    "semaphore": "a permit for every four, acquired and released",
    "barrier": "wait for each other",
    "mixed": "20 us under the lock, which one time in twenty is to write",
    "apart": "20 us under the lock, two of them to write and the others to read",
}


def _describe(load: Load) -> str:
    n, game = load["processes"], load["game"]
    who = f"{n} threads" if game == "threads" else f"{n} process{'es' * (n != 1)}"
    if game == "death":
        return f"{who} wait{'s' * (n == 1)} for a lock whose holder is killed"
    if game == "queue":
        return f"{who} asleep in the queue"
    if game == "relay":
        return f"the holder releases {units.duration(load['outside_ns'])} after the other began to wait"
    if game in GAMES:
        return f"{who}, {GAMES[game]}"
    work = "random locks, each for a bare increment" if game == "array" else "bare increment"
    if load["inside_ns"] or load["outside_ns"]:
        work = f"{units.duration(load['inside_ns'])} inside, {units.duration(load['outside_ns'])} between"
    busy = ", a busy thread beside each" * (game == "convoy")
    longer = f", slices of {load['stretch']} times the length" if load.get("stretch", 1) != 1 else ""
    return f"{who}{busy}{', pinned apart' * load['pin']}, {work}{longer}"


def _remark(subject: str, samples: Sequence[Mapping[str, Any]]) -> str:
    said = []
    if subject != "empty" and any(sample["violations"] for sample in samples):
        said.append("NOT EXCLUSIVE")
    if killed := max(sample["killed"] for sample in samples):
        said.append(f"{killed} stuck")
    return ", ".join(said)


def _spread(found: Spread | None, digits: int) -> tuple[str, str]:
    """A median and its quartiles."""
    if found is None:
        return "–", ""

    def write(value: float) -> str:
        return f"{value:.{digits}f}" if found.median < 100 else f"{value:,.0f}"

    return write(found.median), f"[{write(found.q1)} .. {write(found.q3)}]"


def _uncontended(cell: str, samples: Samples, load: Load) -> Table:
    reference, ours = load["reference"], OURS[cell]
    rows = []
    for subject, mine in samples.items():
        against = ratio(mine, samples[reference], "ns") if reference in samples else None
        cells = (*_spread(typical(mine, "ns"), 1), *_spread(against, 2))
        rows.append((subject, *cells, *_difference(subject, ours, samples)))
    return Table(
        f"uncontended {cell}: CPU time of one operation, its loop included",
        ("", "ns", "", f"/ {reference}", "", "over the default", ""),
        tuple(rows),
    )


def _difference(subject: str, ours: str, samples: Samples) -> tuple[str, str]:
    """What a setting costs beside the default: the median of the rounds' differences."""
    if not subject.startswith(f"{ours},") or ours not in samples:
        return "", ""
    pairs = zip(samples[subject], samples[ours], strict=True)
    found = Spread.of([mine["ns"] - default["ns"] for mine, default in pairs])
    return f"{found.median:+.1f}", f"[{found.q1:+.1f} .. {found.q3:+.1f}]"


def _twins(where: str, samples: Samples, other: str) -> Iterator[Table]:
    """Our own beside those of another pylocks, in the same rounds."""
    rows = []
    for subject, mine in samples.items():
        twin = samples.get(f"{subject}@{other}")
        if twin:
            cells = [_spread(ratio(mine, twin, figure), 2) for figure in ("rate", "max", "cpu", "switches")]
            rows.append((subject, *(text for pair in cells for text in pair)))
    if rows:
        header = ("", "rate", "", "max wait", "", "CPUs", "", "switches", "")
        yield Table(f"{where}: here / {other}", header, tuple(rows))


def _events(name: str, cells: Mapping[str, Samples]) -> Iterator[Table]:
    """What pylocks counted, where it did: events that nobody had are left out."""
    counted = {
        f"{cell} {subject}": mine
        for cell, samples in cells.items()
        for subject, mine in samples.items()
        if any(any(sample["events"].values()) for sample in mine)
    }
    kinds = list(
        dict.fromkeys(
            kind
            for mine in counted.values()
            for sample in mine
            for kind, count in sample["events"].items()
            if count
        )
    )
    rows = []
    for row, mine in counted.items():
        found = (typical(mine, f"events.{kind}") for kind in kinds)
        rows.append((row, *("–" if middle is None else f"{middle.median:.3g}" for middle in found)))
    if rows:
        yield Table(f"{name}: events for each acquisition", ("", *kinds), tuple(rows))


def bars(verdicts: Sequence[Mapping[str, Any]]) -> Table:
    """What was to be reached, and what became of it."""
    rows, styles = [], []
    for verdict in verdicts:
        bar = verdict["bar"]
        figure = None if verdict["figure"] is None else Spread(**verdict["figure"])
        ratios = bool(bar["against"])
        limit = bar["at_least"] if bar["at_least"] is not None else bar["at_most"]
        sign = "≥" if bar["at_least"] is not None else "≤"
        write = units.duration if bar["measure"] == "max" and not ratios else lambda value: f"{value:.3g}"
        what = bar["measure"]
        if ratios:
            peer = verdict["peer"] or (bar["against"][0] if len(bar["against"]) == 1 else "the best peer")
            cell = f" at {bar['against_cell']}" if bar["against_cell"] else ""
            what += f" / {peer}{cell}"
        said = {True: "met", False: "MISSED", None: "not measured"}[verdict["met"]]
        rows.append(
            (
                f"{bar['scenario']} {bar['cell']} {bar['subject']}: {what}",
                "" if figure is None else write(figure.median),
                "" if figure is None else f"[{write(figure.q1)} .. {write(figure.q3)}]",
                f"{sign} {write(limit)}",
                said,
            )
        )
        styles.append({"met": "green", "MISSED": "bold red"}.get(said, "dim"))
    return Table("Bars", ("", "figure", "", "bar", ""), tuple(rows), tuple(styles))


def show(result: Mapping[str, Any], to: IO[str], *, more: Sequence[Table] = ()) -> None:
    """All tables and warnings."""
    shown = [*tables(result), *([bars(result["bars"])] if result["bars"] else []), *more]
    options = result["options"]
    lines = [
        f"pylocks {result['pylocks']} on {host.line(result['host'])}, {result['compiler']}",
        f"Medians of {options['rounds']} interleaved rounds, slices of {options['seconds']:g} s; ratios are "
        "medians of the rounds' ratios, with their quartiles in brackets.",
    ]
    print_tables(lines, shown, result["warnings"], to)


def print_tables(lines: Sequence[str], shown: Sequence[Table], warnings: Sequence[str], to: IO[str]) -> None:
    """What was measured on, what was found, and what may have spoilt it; with rich if it is there."""
    notes = [f"warning: {warning}" for warning in warnings]
    try:
        import rich  # noqa: F401
    except ImportError:
        _plain(lines, shown, notes, to)
    else:
        _rich(lines, shown, notes, to)


def _rich(lines: Sequence[str], shown: Sequence[Table], notes: Sequence[str], to: IO[str]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    console = Console(file=to, highlight=False, width=None if to.isatty() else WIDTH)
    for line in lines:
        console.print(Text(line, style="dim"))
    for table in shown:
        drawn = RichTable(
            box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1), show_edge=False, title_justify="left"
        )
        for number, title in enumerate(table.header):
            drawn.add_column(title, justify="right" if number else "left", no_wrap=True)
        styles = table.styles or ("",) * len(table.rows)
        for row, style in zip(table.rows, styles, strict=True):
            drawn.add_row(*row, style=style)
        console.print()
        console.print(Text(table.title, style="bold"))
        console.print(drawn)
    for note in notes:
        console.print(Text(note, style="yellow"))


def _plain(lines: Sequence[str], shown: Sequence[Table], notes: Sequence[str], to: IO[str]) -> None:
    print(*lines, sep="\n", file=to)
    for table in shown:
        rows = [table.header, *table.rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        print(f"\n{table.title}", file=to)
        for row in rows:
            first, *others = (
                text.rjust(width) if number else text.ljust(width)
                for number, (text, width) in enumerate(zip(row, widths, strict=True))
            )
            print(f"  {'  '.join([first, *others])}".rstrip(), file=to)
    print(*notes, sep="\n", file=to)
