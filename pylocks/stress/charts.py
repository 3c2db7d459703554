"""The pictures: throughput against overcommit, how long waits are, who got how much."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter, NullLocator

from . import host, units
from .results import Row

INK, FAINT, GRID, GROUND = "#1c1d21", "#6f7480", "#e3e5ea", "#ffffff"
#: A colour for each subject that has its own, on a light ground and on a dark one.
COLOURS = {
    "native": ("#c2410d", "#f58b4b"),
    "yield": ("#0b7a6f", "#35c4b2"),
    "futex": ("#2158d8", "#7aa5ff"),
    "mp": ("#7a5c9e", "#b79ad9"),
}
SPARE = (("#a3195b", "#f06fa8"), ("#8a6d00", "#d8b52f"), ("#4c7a12", "#97c94f"), ("#475569", "#a8b4c6"))


@dataclass(frozen=True)
class Series:
    """The rows of one subject, in the order of their overcommit."""

    name: str
    label: str
    rows: tuple[Row, ...]
    light: str
    dark: str

    @property
    def top(self) -> Row:
        """The row at the highest overcommit."""
        return self.rows[-1]


def series(result: dict[str, Any]) -> list[Series]:
    """What there is to draw: subjects with at least one finished row."""
    spare = iter(SPARE * 8)
    by_name: dict[str, list[Row]] = {}
    for row in result["rows"]:
        if row["ended"] != "failed" and row["acquisitions"]:
            by_name.setdefault(row["slow_path"], []).append(row)
    found = []
    for name, rows in by_name.items():
        light, dark = COLOURS[name] if name in COLOURS else next(spare)
        ordered = tuple(sorted(rows, key=lambda row: float(row["overcommit"])))
        # The peer's whole name is too long to stand beside a line.
        label = name if ordered[0]["protocol"] else "mp.Lock"
        found.append(Series(name, label, ordered, light, dark))
    return found


def highest(lines: Sequence[Series]) -> list[Series]:
    """Those that have a row at the highest overcommit of all."""
    most = max((line.top["overcommit"] for line in lines), default=0)
    return [line for line in lines if line.top["overcommit"] == most]


def at(shown: Sequence[Series]) -> str:
    """The overcommit of the rows shown by waits() and shares(), for titles."""
    return f"at {units.factor(round(shown[0].top['overcommit'], 2))}" if shown else ""


def throughput(axes: Axes, lines: Sequence[Series]) -> None:
    """Acquisitions a second against overcommit, both logarithmic."""
    ends = []
    for line in lines:
        x = [row["overcommit"] for row in line.rows]
        y = [row["acquisitions_per_s"] for row in line.rows]
        axes.plot(x, y, color=line.light, marker="o", markersize=5, linewidth=2, clip_on=False)
        ends.append((x[-1], y[-1], f"{line.label}\n{units.count(y[-1])}/s", line.light))
    factors = sorted({row["overcommit"] for line in lines for row in line.rows})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    if high < 10 * low:  # too little to have a power of ten in it to write beside the axis
        axes.set_ylim(10 ** math.floor(math.log10(low)), 10 ** math.ceil(math.log10(high)))
    axes.xaxis.set_major_locator(FixedLocator(factors))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: units.factor(round(x, 2))))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: units.count(y)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("overcommit: processes for each CPU")
    axes.set_title("Acquisitions a second")
    label_ends(axes, ends)


def waits(axes: Axes, lines: Sequence[Series]) -> None:
    """The share of waits longer than a time, both logarithmic, at the highest overcommit."""
    shown = highest(lines)
    ends = []
    longest = least = 1.0
    for line in shown:
        total = sum(count for _, _, count in line.top["wait_histogram"])
        left = total
        x, y = [], []
        for low, high, count in line.top["wait_histogram"]:
            x.append(max(low, 1))
            y.append(left / total)
            left -= count
            last = min(high, line.top["wait_ns"]["max"])
        x.append(last)
        y.append(y[-1])
        axes.plot(x, y, color=line.light, linewidth=2)
        axes.plot(x[-1], y[-1], color=line.light, marker="o", markersize=5)
        ends.append((x[-1], y[-1], f"{line.label}\n{units.duration(line.top['wait_ns']['max'])}", line.light))
        longest, least = max(longest, last), min(least, y[-1])
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(100, max(longest * 2, 1e4))
    axes.set_ylim(least / 3, 1.6)
    axes.xaxis.set_major_locator(FixedLocator(_decades(2, axes.get_xlim()[1])))
    axes.yaxis.set_major_locator(LogLocator(numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: units.duration(x)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: _percent(y)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("time")
    axes.set_title(f"Share of waits longer than a time, {at(shown)}")
    label_ends(axes, ends)


def shares(axes: Axes, lines: Sequence[Series]) -> None:
    """What each process got of an equal share, sorted, at the highest overcommit."""
    shown = highest(lines)
    ends = []
    for line in shown:
        counts = sorted(sample["acquisitions"] for sample in line.top["per_process"])
        fair = sum(counts) / len(counts)
        x = range(1, len(counts) + 1)
        y = [count / fair for count in counts]
        axes.plot(x, y, color=line.light, marker="o", markersize=4, linewidth=2, clip_on=False)
        ends.append((len(counts), y[-1], f"{line.label}\nJain {line.top['jain']:.3f}", line.light))
    axes.set_ylim(bottom=0)
    axes.margins(y=0.1)
    most = max((len(line.top["per_process"]) for line in shown), default=1)
    axes.xaxis.set_major_locator(FixedLocator(_ranks(most)))
    axes.set_xlabel("processes, from the one that got least")
    axes.set_ylabel("times an equal share")
    axes.set_title(f"Share of each process, {at(shown)}")
    label_ends(axes, ends)


#: The panels by name, in the order of the pictures.
PANELS: dict[str, Callable[[Axes, Sequence[Series]], None]] = {
    "throughput": throughput,
    "waits": waits,
    "shares": shares,
}


def save_png(result: dict[str, Any], path: str) -> None:
    """All panels side by side, with what they were measured on; OSError if it can't be written."""
    lines = series(result)
    with style():
        figure = Figure(figsize=(16, 5.2), facecolor=GROUND)
        for number, panel in enumerate(PANELS.values(), 1):
            axes = figure.add_subplot(1, len(PANELS), number)
            frame(axes)
            panel(axes, lines)
        figure.subplots_adjust(left=0.045, right=0.935, top=0.87, bottom=0.21, wspace=0.55)
        figure.text(0.012, 0.045, _caption(result), color=FAINT, fontsize=9.5)
        figure.savefig(path, format="png", dpi=130)


def svg(result: dict[str, Any], name: str) -> str:
    """One panel as SVG to stand in a page, its colours as the page's custom properties."""
    with style(), mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure = Figure(figsize=(4.7, 3.6))
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        frame(axes)
        lines = series(result)
        PANELS[name](axes, lines)
        axes.set_title("")  # the page has its own
        axes.set_ylabel("")
        figure.subplots_adjust(left=0.17, right=0.79, top=0.965, bottom=0.145)
        return for_page(figure, {line.light: f"--{line.name}" for line in lines})


def properties(lines: Sequence[Series], *, dark: bool) -> dict[str, str]:
    """The custom properties that svg() uses for subjects, by name."""
    return {f"--{line.name}": line.dark if dark else line.light for line in lines}


def for_page(figure: Figure, colours: Mapping[str, str]) -> str:
    """A figure as an element: no prologue, no fixed size, no identifiers that could clash.

    colours: those that the page has as custom properties -> their names.
    """
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    text = re.sub(r'(<svg[^>]*?) (?:width|height)="[^"]*"', r"\1", text)
    text = re.sub(r'<g id="[^"]*"', "<g", text)
    named = {INK: "--ink", FAINT: "--faint", GRID: "--grid", GROUND: "--ground"}
    named |= colours
    for colour, name in named.items():
        text = text.replace(colour, f"var({name})")
    return text.strip()


@contextmanager
def style() -> Iterator[None]:
    """Fonts and colours of all pictures."""
    with mpl.rc_context(
        {
            "font.family": "sans-serif",
            "font.size": 11,
            "axes.titlesize": 13,
            "axes.titleweight": "bold",
            "axes.titlelocation": "left",
            "axes.titlepad": 12,
            "axes.titlecolor": INK,
            "axes.labelcolor": FAINT,
            "axes.edgecolor": FAINT,
            "xtick.color": FAINT,
            "ytick.color": FAINT,
            "xtick.labelcolor": INK,
            "ytick.labelcolor": INK,
            "text.color": INK,
        }
    ):
        yield


def frame(axes: Axes) -> None:
    """Nothing but a grid behind the lines."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color=GRID, linewidth=1)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both")


def _percent(share: float) -> str:
    """As many decimals as it takes: 100 %, 0.001 %."""
    return f"{100 * share:.12f}".rstrip("0").rstrip(".") + " %"


def _decades(first: int, most: float) -> list[float]:
    """Powers of ten to write below a panel: all of them, or every other one if there are many."""
    last = int(math.log10(most))
    step = 1 if last - first < 4 else 2
    return [10.0**power for power in range(last, first - 1, -step)]


def _ranks(most: int) -> list[int]:
    """Whole numbers to write below the processes: the first, the last, and a few between."""
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024) if most <= 5 * step)
    ranks = [1, *range(step, most, step), most] if step > 1 else list(range(1, most + 1))
    return sorted({rank for rank in ranks if rank in (1, most) or most - rank >= step})


def label_ends(
    axes: Axes,
    ends: Sequence[tuple[float, float, str, str]],
    *,
    least: float = 0.155,
    size: float = 10.5,
) -> None:
    """Write each line's name right of the panel at the height of its end, none over another.

    ``ends``: (x, y, text, colour) each; ``least``: between two of them, of the panel's height.
    """
    to_panel = axes.transData + axes.transAxes.inverted()
    placed = sorted(
        ((float(to_panel.transform((x, y))[1]), text, colour) for x, y, text, colour in ends),
        key=lambda end: end[0],
    )
    heights = spread([height for height, _, _ in placed], least=least, low=0.05, high=0.95)
    for height, (_, text, colour) in zip(heights, placed, strict=True):
        label = axes.text(1.03, height, text, color=colour, transform=axes.transAxes, fontsize=size)
        label.set(va="center", linespacing=1.15)


def spread(heights: Sequence[float], *, least: float, low: float, high: float) -> list[float]:
    """Ascending heights moved as little as needed to stand ``least`` apart between low and high.

    Too many to fit stand closer.
    """
    moved = list(heights)
    least = min(least, (high - low) / max(1, len(moved) - 1))
    for _ in range(200):
        for number in range(1, len(moved)):
            lack = least - (moved[number] - moved[number - 1])
            if lack > 0:
                moved[number] += lack / 2
                moved[number - 1] -= lack / 2
        moved = [min(max(height, low), high) for height in moved]
    return moved


def _caption(result: dict[str, Any]) -> str:
    options = result["options"]
    peer = any(row["protocol"] is None for row in result["rows"])
    return (
        f"pylocks {result['pylocks']} stress, seed {result['seed']}, {options['locks']} lock"
        f"{'s' * (options['locks'] != 1)}, {units.duration(options['cs_ns'])} under the lock and "
        f"{units.duration(options['outside_ns'])} between. {host.line(result['host'])}."
        + " mp.Lock: multiprocessing.Lock."
        * peer
    )
