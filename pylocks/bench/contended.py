"""How contended locks compare at the C level: python -m pylocks.bench.contended.

All subjects take turns: each has a process of its own, which forks the contenders of a slice, and a
round is one slice of every subject in random order.  Each round gives one sample of each subject; the
table shows medians.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from typing import Any

from pylocks.stress import host, units

from . import build
from .arena import Slice
from .csubjects import library
from .lineup import C_LINEUP, Contender, contender
from .process import Process, ProcessError

__all__ = ["SHAPES", "Cell", "main", "measure", "turns_per_ns"]

SHAPES: dict[str, tuple[int, int]] = {"S": (200, 1000), "M": (2000, 2000), "L": (20000, 2000)}
"""ns in the critical section, and between on average."""

Samples = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Cell:
    """One load."""

    processes: int
    shape: str

    def slice(self, speed: float, seconds: float, *, pin: bool, collapses: bool, seed: int) -> Slice:
        """What it asks of the workers; speed: turns of work in a nanosecond."""
        inside, outside = SHAPES[self.shape]
        return Slice(
            self.processes,
            round(inside * speed),
            round(outside * speed),
            seconds,
            seed=seed,
            pin=pin,
            collapses=collapses,
        )


def turns_per_ns() -> float:
    """Turns of work in a nanosecond, from the fastest of several tries: all disturbances make it slower."""
    turns = 100_000
    return turns / min(int(library().bench_time_turns(turns)) for _ in range(50))


def measure(
    contenders: Sequence[Contender],
    cells: Sequence[Cell],
    *,
    rounds: int,
    seconds: float,
    pin: bool = False,
    seed: int = 1,
    tell: Callable[[str], None] = lambda text: None,
) -> tuple[dict[Cell, Samples], dict[str, dict[str, Any]]]:
    """Samples of each cell and subject, a list with one for each round; and the subjects' facts.

    build.CompilerError, ProcessError.
    """
    speed = turns_per_ns()
    order = random.Random(seed)
    with ExitStack() as stack:
        facts: dict[str, dict[str, Any]] = {}
        there: list[tuple[Contender, Process]] = []
        for row in contenders:
            process = stack.enter_context(Process("host", row.setting))
            facts[row.name] = process.ask({"subject": row.subject, "policy": row.policy})
            if "unavailable" not in facts[row.name]:
                there.append((row, process))
        found: dict[Cell, Samples] = {cell: {row.name: [] for row, _ in there} for cell in cells}
        for cell in cells:
            for number in range(rounds):
                tell(f"{cell.processes} processes, {cell.shape}: round {number + 1} of {rounds}")
                for row, process in order.sample(there, len(there)):
                    asked = cell.slice(
                        speed, seconds, pin=pin, collapses=row.collapses, seed=order.getrandbits(63)
                    )
                    found[cell][row.name].append(process.ask(asdict(asked)))
    return found, facts


COLUMNS: dict[str, Callable[[dict[str, float | None]], str]] = {
    "acq/s": lambda s: units.count(s["rate"]),
    "Jain": lambda s: "–" if s["jain"] is None else f"{s['jain']:.3f}",
    "p50 wait": lambda s: units.duration(s["p50"]),
    "p99": lambda s: units.duration(s["p99"]),
    "p99.9": lambda s: units.duration(s["p999"]),
    "max": lambda s: units.duration(s["max"]),
    "CPUs": lambda s: f"{s['cpu']:.2f}",
    "switches": lambda s: "–" if s["switches"] is None else f"{s['switches']:.3f}",
}


def typical(samples: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """The median of each figure."""
    figures: dict[str, float | None] = {}
    for name in samples[0]:
        values = [sample[name] for sample in samples if sample[name] is not None]
        figures[name] = median(values) if values else None
    return figures


def table(cell: Cell, samples: Samples, reference: str | None) -> str:
    """All subjects of a cell; ratios are medians of the rounds' ratios."""
    inside, outside = SHAPES[cell.shape]
    lines = [["", *COLUMNS, *([f"/ {reference}"] if reference else []), ""]]
    for name, rows in samples.items():
        figures = typical(rows)
        line = [name, *(show(figures) for show in COLUMNS.values())]
        if reference:
            ratios = [
                mine["rate"] / other["rate"]
                for mine, other in zip(rows, samples[reference], strict=True)
                if other["rate"]
            ]
            line.append(f"{median(ratios):.2f}" if ratios else "–")
        remarks = []
        if name != "empty" and any(row["violations"] for row in rows):
            remarks.append("NOT EXCLUSIVE")
        if any(row["killed"] for row in rows):
            remarks.append(f"{max(row['killed'] for row in rows)} stuck")
        lines.append([*line, ", ".join(remarks)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        f"{cell.processes} processes, {cell.shape}: {units.duration(inside)} inside, "
        f"{units.duration(outside)} between"
    ]
    for line in lines:
        cells = [line[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(line[1:-1], widths[1:-1], strict=True)]
        text.append("  " + "  ".join([*cells, line[-1]]).rstrip())
    return "\n".join(text)


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m pylocks.bench.contended", description=(__doc__ or "").splitlines()[0]
    )
    names = [row.name for row in C_LINEUP]
    listed = partial(str.split, sep=",")
    add = parser.add_argument
    add("--subjects", type=listed, default=names, help=f"of {','.join(names)} (all)")
    add("--processes", type=listed, default=["8"], help="numbers of processes (8)")
    add("--shapes", type=listed, default=list(SHAPES), help=f"of {','.join(SHAPES)} (all)")
    add("--seconds", type=float, default=0.3, help="a slice (%(default)s)")
    add("--rounds", type=int, default=5, help="(%(default)s)")
    add("--reference", help="the subject to which the others are compared (the first)")
    add("--pin", action="store_true", help="each process to a CPU of its own, as far as they go")
    args = parser.parse_args(argv)
    try:
        contenders = [contender(name) for name in args.subjects]
        cells = [Cell(int(n), shape) for n in args.processes for shape in args.shapes]
        for shape in args.shapes:
            SHAPES[shape]
    except (LookupError, ValueError) as error:
        parser.error(str(error))
    print(host.line(host.describe()))
    try:
        for cell in cells:
            found, facts = measure(
                contenders, [cell], rounds=args.rounds, seconds=args.seconds, pin=args.pin
            )
            print(table(cell, found[cell], args.reference or next(iter(found[cell]), None)), flush=True)
    except (build.CompilerError, ProcessError) as error:
        print(f"contended: {error}", file=sys.stderr)
        return 2
    for name, fact in facts.items():
        if "unavailable" in fact:
            print(f"not available: {name}: {fact['unavailable']}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
