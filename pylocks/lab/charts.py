"""The pictures of the laboratory's page, as SVG elements."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

from pylocks.bench.results import typical
from pylocks.stress import units
from pylocks.stress.charts import COLOURS, FAINT, INK, for_page, frame, style

from .report import label
from .scenarios import LINEUP, WORK

__all__ = ["overview", "properties", "spent", "stops"]

SUBJECTS: dict[str, tuple[str, str]] = {
    "pylocks:native": COLOURS["native"],
    "pylocks:yield": COLOURS["yield"],
    "pylocks:futex": COLOURS["futex"],
    "pylocks:bounded": ("#a3195b", "#f06fa8"),
    WORK: ("#475569", "#a8b4c6"),
}
"""A colour for a light ground and one for a dark one."""
MS = 1e3


def property_of(subject: str) -> str:
    """The name of the page's custom property for its colour."""
    return "--" + label(subject).replace(" ", "-")


def properties(*, dark: bool) -> dict[str, str]:
    """The page's custom properties."""
    return {property_of(name): colours[dark] for name, colours in SUBJECTS.items()}


def _element(figure: Figure, name: str, title: str) -> str:
    """The figure for the page, under a name of its own."""
    figure.patch.set_alpha(0)
    for axes in figure.axes:
        axes.patch.set_alpha(0)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        drawn = for_page(figure, {light: property_of(subject) for subject, (light, _) in SUBJECTS.items()})
    return drawn.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _rows(result: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    return [
        (f"{name} {cell}", samples)
        for name, found in result["scenarios"].items()
        for cell, samples in found["cells"].items()
    ]


def overview(result: Mapping[str, Any], figure: str, title: str) -> str:
    """A figure of all subjects in all loads: a line for each load, a dot for each subject."""
    rows = _rows(result)
    shown = [name for name in LINEUP if figure != "waiting" or name != WORK]
    with style():
        drawn = Figure(figsize=(7.2, 1.15 + 0.33 * len(rows)))
        axes = drawn.add_subplot()
        frame(axes)
        for height, (_, samples) in enumerate(rows):
            for subject in shown:
                found = typical(samples.get(subject, ()), figure)
                if found is not None and (figure == "waiting" or found.median > 0):
                    axes.plot(found.median, height, "o", color=SUBJECTS[subject][0], markersize=7,
                              zorder=3, clip_on=False)  # fmt: skip
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(axis="x", color=FAINT, linewidth=0.5, alpha=0.3)
        if figure == "waiting":
            axes.set_xlim(0, 1)
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g} %"))
        else:
            write = units.duration if figure == "cost" else units.count
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: write(x)))
            axes.xaxis.set_minor_formatter(NullFormatter())
        for number, subject in enumerate(shown):
            axes.text(number / len(shown), 1.02, f"● {label(subject)}", color=SUBJECTS[subject][0],
                      transform=axes.transAxes, fontsize=10)  # fmt: skip
        drawn.subplots_adjust(left=0.3, right=0.965, top=1 - 0.4 / drawn.get_figheight(),
                              bottom=0.4 / drawn.get_figheight())  # fmt: skip
        return _element(drawn, f"overview-{figure}", title)


def spent(samples: Mapping[str, Sequence[Mapping[str, Any]]], name: str, title: str) -> str:
    """What became of the CPUs: work, and waiting, which is drawn paler."""
    subjects = [subject for subject in LINEUP if subject in samples]
    with style():
        drawn = Figure(figsize=(5.2, 0.75 + 0.36 * len(subjects)))
        axes = drawn.add_subplot()
        frame(axes)
        axes.grid(visible=False)
        for height, subject in enumerate(subjects):
            used, waiting = typical(samples[subject], "cpu"), typical(samples[subject], "waiting")
            if used is None:
                continue
            lost = used.median * (0.0 if waiting is None else waiting.median)
            colour = SUBJECTS[subject][0]
            axes.barh(height, used.median - lost, height=0.62, color=colour)
            axes.barh(height, lost, left=used.median - lost, height=0.62, color=colour, alpha=0.35)
            text = f"{lost:.2f} of {used.median:.2f}" if subject != WORK else f"{used.median:.2f}"
            axes.annotate(text, (used.median, height), (5, 0), textcoords="offset points", va="center",
                          fontsize=9.5, color=INK)  # fmt: skip
        axes.set_yticks(range(len(subjects)), [label(subject) for subject in subjects])
        axes.set_ylim(len(subjects) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("CPUs", labelpad=1)
        drawn.subplots_adjust(left=0.17, right=0.83, top=0.97, bottom=0.52 / drawn.get_figheight())
        return _element(drawn, f"spent-{name}", title)


def stops(sample: Mapping[str, Any], processes: int, subject: str, name: str, title: str) -> str:
    """When which vCPU was stopped, in the first round."""
    with style():
        drawn = Figure(figsize=(5.2, 0.75 + 0.24 * processes))
        axes = drawn.add_subplot()
        frame(axes)
        axes.grid(visible=False)
        for number in range(processes):
            mine = [(at * MS, (end - at) * MS) for vcpu, at, end in sample["stops"] if vcpu == number]
            axes.broken_barh(mine, (number - 0.36, 0.72), color=SUBJECTS[subject][0])
            axes.axhline(number, color=FAINT, linewidth=0.4, alpha=0.4, zorder=0)
        axes.set_yticks(range(processes), [f"vCPU {number}" for number in range(processes)])
        axes.set_ylim(processes - 0.4, -0.6)
        axes.set_xlim(0, min(sample["seconds"] * MS, 300))
        axes.set_xlabel("ms since the window opened", labelpad=1)
        drawn.subplots_adjust(left=0.17, right=0.94, top=0.97, bottom=0.52 / drawn.get_figheight())
        return _element(drawn, f"stops-{name}-{label(subject)}", title)
