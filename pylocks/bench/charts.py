"""Pictures of a run: throughput and the longest waits against the number of processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from pylocks.stress import host, units
from pylocks.stress.charts import FAINT, GROUND, frame, label_ends, style

from .lineup import contenders
from .results import typical

__all__ = ["Line", "lines", "save"]

OURS = ("#2158d8", "#0b7a6f", "#c2410d", "#7a5c9e", "#a3195b", "#4c7a12")
PEERS = ("#8a6d00", "#475569", "#8d99ae", "#b08968", "#6b705c", "#9d8189", "#577590", "#a5a58d")
UNSEEN = ("empty",)
PANELS = (("rate", "acquisitions a second", units.count), ("max", "longest wait", units.duration))

Line = tuple[list[int], list[float]]
"""Numbers of processes, and a figure at each."""


def lines(cells: Mapping[str, Any], loads: Mapping[str, Any], shape: str, figure: str) -> dict[str, Line]:
    """A line for each subject, over the cells of a shape."""
    found: dict[str, Line] = {}
    for cell, samples in sorted(cells.items(), key=lambda item: loads[item[0]]["processes"]):
        if loads[cell].get("shape", "") != shape:
            continue
        for subject, mine in samples.items():
            middle = typical(mine, figure)
            if middle is not None and middle.median > 0 and subject not in UNSEEN:
                counts, values = found.setdefault(subject, ([], []))
                counts.append(loads[cell]["processes"])
                values.append(middle.median)
    return found


def merged(result: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cells with two contenders and those with more, which make one axis."""
    cells: dict[str, Any] = {}
    loads: dict[str, Any] = {}
    for name in ("two", "overcommit"):
        found = result["scenarios"].get(name)
        if found is not None:
            cells |= found["cells"]
            loads |= found["loads"]
    if not cells and "python" in result["scenarios"]:
        found = result["scenarios"]["python"]
        cells, loads = found["cells"], found["loads"]
    return cells, {
        name: {**load, "shape": load.get("shape") or name.partition(":")[2]} for name, load in loads.items()
    }


def save(result: Mapping[str, Any], path: str) -> None:
    """All panels: a column for each shape of the load; OSError, ValueError if there is nothing to draw."""
    cells, loads = merged(result)
    if not cells:
        raise ValueError("nothing to draw: the pictures show the scenarios two, overcommit and python")
    shapes = list(dict.fromkeys(load["shape"] for load in loads.values()))
    subjects = list(dict.fromkeys(name for cell in cells.values() for name in cell if name not in UNSEEN))
    colours = _colours(subjects)
    with style():
        figure = Figure(figsize=(5.6 * len(shapes), 9.4), facecolor=GROUND)
        for row, (measure, title, write) in enumerate(PANELS):
            for column, shape in enumerate(shapes):
                axes = figure.add_subplot(len(PANELS), len(shapes), row * len(shapes) + column + 1)
                frame(axes)
                _panel(axes, lines(cells, loads, shape, measure), colours, write)
                axes.set_title(f"{title.capitalize()}, {_shape(shape, loads)}", fontsize=11.5)
        figure.subplots_adjust(left=0.05, right=0.9, top=0.94, bottom=0.115, wspace=0.74, hspace=0.34)
        figure.text(0.012, 0.02, _caption(result), color=FAINT, fontsize=9.5)
        figure.savefig(path, format=Path(path).suffix[1:], dpi=110)


def _panel(axes: Axes, found: Mapping[str, Line], colours: Mapping[str, str], write: Any) -> None:
    ends = []
    for subject, (counts, values) in found.items():
        ours = _ours(subject)
        axes.plot(
            counts, values, color=colours[subject], marker="o", markersize=4.5 if ours else 3,
            linewidth=2.2 if ours else 1.2, linestyle="-" if ours else (0, (4, 1.5)), clip_on=False,
            zorder=3 if ours else 2,
        )  # fmt: skip
        ends.append((counts[-1], values[-1], f"{subject}  {write(values[-1])}", colours[subject]))
    counts = sorted({count for counts, _ in found.values() for count in counts})
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: write(y)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("processes")
    if ends:
        label_ends(axes, ends, least=0.062, size=8.5)


def _ours(subject: str) -> bool:
    return contenders([subject.partition("@")[0]])[0].ours


def _colours(subjects: Sequence[str]) -> dict[str, str]:
    """A colour for each: strong ones for pylocks."""
    chosen: dict[str, str] = {}
    for palette, ours in ((OURS, True), (PEERS, False)):
        names = [name for name in subjects if _ours(name) is ours]
        chosen |= {name: palette[number % len(palette)] for number, name in enumerate(names)}
    return chosen


def _shape(shape: str, loads: Mapping[str, Any]) -> str:
    load = next(load for load in loads.values() if load["shape"] == shape)
    if not load["inside_ns"]:
        return "bare increment"
    return f"{units.duration(load['inside_ns'])} inside, {units.duration(load['outside_ns'])} between"


def _caption(result: Mapping[str, Any]) -> str:
    options = result["options"]
    return (
        f"pylocks {result['pylocks']} bench: medians of {options['rounds']} interleaved rounds of "
        f"{options['seconds']:g} s. Solid: pylocks; dashed: others. {host.line(result['host'])}."
    )
