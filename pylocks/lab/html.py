"""The laboratory's report: one page that needs nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from pylocks.stress import host, units
from pylocks.stress.style import CSS

from . import charts
from .plan import AIMS
from .report import COLUMNS, experiment_of, label, load, shape_rows, subject_rows, summary
from .scenarios import FRIEBEL, FUTEX, NATIVE

__all__ = ["page"]

MORE_CSS = """\
.figures { grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); }
.pair { display: grid; gap: 1rem 2.2rem; margin: 0.4rem 0 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 22rem), 1fr)); }
figure svg { max-width: 40rem; }
.claims { list-style: none; padding: 0; margin: 0 0 1rem; }
.claims b { font-weight: 600; margin-right: 0.3em; }
.met b { color: var(--good); } .missed b { color: var(--bad); } .open b, .open { color: var(--faint); }
.about { max-width: 46rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0.3rem; }
article { margin: 0 0 3rem; }
"""
OVERVIEW = {
    "cost": ("CPU time of an acquisition", "All vCPUs together, the work itself included, which is all there "
             "is to “no lock”. Logarithmic: equal distances are equal factors."),
    "waiting": ("Part of the CPU time spent waiting", "What an acquisition costs beyond the work itself: "
                "spinning, calls and switches."),
    "rate": ("Acquisitions a second", "Of all vCPUs together; logarithmic."),
}  # fmt: skip
MARKS = {True: ("met", "✓"), False: ("missed", "✗"), None: ("open", "–")}
SAID = "as expected"


def page(result: Mapping[str, Any]) -> str:
    """The whole document."""
    body = [_head(result)]
    if result["scenarios"]:
        body.append(f'<div class="figures">{"".join(_overview(result))}</div>')
    body += [_experiment(result, name) for name in result["scenarios"]]
    body += [_notes(result), _how(result)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>pylocks lab: {escape(summary(result))}</title>\n"
        f"<style>\n{CSS}{MORE_CSS}{_colours()}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(filter(None, body))
        + "\n</main>\n</body>\n</html>\n"
    )


def _colours() -> str:
    light = "".join(f"{name}: {value}; " for name, value in charts.properties(dark=False).items())
    dark = "".join(f"{name}: {value}; " for name, value in charts.properties(dark=True).items())
    return f":root {{ {light}}}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"


def _head(result: Mapping[str, Any]) -> str:
    met = [row["met"] for row in result["shape"]]
    verdict = "fail" if False in met else "incomplete" if None in met or not met else "pass"
    return (
        "<header>\n"
        f'<p class="kicker">pylocks {escape(result["pylocks"])} · {escape(result["started"][:10])}</p>\n'
        "<h1>When lock holders and waiters are preempted</h1>\n"
        f'<p class="verdict {verdict}"><strong>Shape</strong> {escape(summary(result))}.</p>\n'
        '<p class="lead">A hypervisor, or a scheduler, may stop a virtual CPU that holds a lock, or the one '
        "that is next in line. Native waiters of a ticket lock then spin, for nothing, until it goes on; "
        "enlightened ones go to sleep until they are kicked, and give their CPU time back.</p>\n"
        f'<p class="host">The observation is that of {escape(FRIEBEL)}. Here: '
        f"{escape(host.line(result['host']))}.</p>\n"
        "</header>"
    )


def _overview(result: Mapping[str, Any]) -> Iterator[str]:
    for figure, (title, about) in OVERVIEW.items():
        drawing = charts.overview(result, figure, escape(title))
        yield (
            f"<figure>\n<h2>{escape(title)}</h2>\n{drawing}\n<figcaption>{escape(about)}</figcaption>\n</figure>"
        )


def _experiment(result: Mapping[str, Any], name: str) -> str:
    found, one = result["scenarios"][name], experiment_of(name)
    cpus = len(result["options"]["cpus"])
    facts = {
        "After": one.source,
        "Stolen": AIMS[one.aim],
        "Expected": one.expected,
    }
    described = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in facts.items())
    cells = "".join(_cell(name, cell, found, cpus) for cell in found["cells"])
    return (
        f"<article>\n<h2>{escape(name)}: {escape(one.meaning)}</h2>\n<dl>{described}</dl>\n"
        f"{_claims(result, name)}{cells}</article>"
    )


def _claims(result: Mapping[str, Any], name: str) -> str:
    rows = [row for row in result["shape"] if row["bar"]["scenario"] == name]
    items = []
    for row, (claim, figure, limit, said) in zip(rows, shape_rows(rows), strict=True):
        state, mark = MARKS[row["met"]]
        rest = "" if said == SAID else f"; {said}"
        items.append(
            f'<li class="{state}"><b>{mark}</b> {escape(claim)}: {escape(figure)} '
            f"({escape(limit)}{escape(rest)})</li>"
        )
    return f'<ul class="claims">{"".join(items)}</ul>\n' if items else ""


def _cell(name: str, cell: str, found: Mapping[str, Any], cpus: int) -> str:
    samples, about = found["cells"][cell], found["loads"][cell]
    title = f"What became of the CPU time: {name} {cell}"
    spent = _figure(
        charts.spent(samples, f"{name}-{cell}", escape(title)),
        f"CPUs used, of {cpus}: full colour the work, pale the waiting (the first number).",
    )
    stops = ""
    for subject in (NATIVE, FUTEX):
        first = (samples.get(subject) or [None])[0]
        if first and first["stops"]:
            title = f"When vCPUs were stopped: {name} {cell}, {label(subject)}"
            picture = charts.stops(first, about["processes"], subject, f"{name}-{cell}", escape(title))
            stops += _figure(
                picture, f"When vCPUs were stopped ({label(subject)}, first round, up to 300 ms)."
            )
    return (
        f"<h3>{escape(cell)}: {escape(load(about, cpus))}</h3>\n"
        f'<div class="pair">{spent}<div>{stops}</div></div>\n{_table(samples)}'
    )


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(samples: Mapping[str, Any]) -> str:
    titles = [("", "slow path of pylocks' lock"), *((title, about) for _, title, about, _ in COLUMNS)]
    titles.insert(3, ("/ native", "the same as a multiple of native's"))
    titles.append(("", "how it ended"))
    heads = "".join(f'<th scope="col" title="{escape(about)}">{escape(text)}</th>' for text, about in titles)
    rows = []
    for subject, cells, remark in subject_rows(samples):
        dot = f'<i style="background: var({charts.property_of(subject)})"></i>'
        figures = "".join(f"<td>{escape(text)}</td>" for text in (*cells, remark))
        rows.append(f'<tr><td class="name">{dot}{escape(label(subject))}</td>{figures}</tr>')
    return (
        f'<div class="scroll" tabindex="0">\n<table><thead><tr>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>\n</div>\n"
    )


def _notes(result: Mapping[str, Any]) -> str:
    items = "".join(f"<li>{escape(line)}</li>" for line in result["warnings"])
    return f"<section>\n<h2>Notes on the figures</h2>\n<ul>{items}</ul>\n</section>" if items else ""


def _how(result: Mapping[str, Any]) -> str:
    options = result["options"]
    described = {
        "Rounds": f"{options['rounds']}, interleaved; figures are their medians",
        "Slices": f"{options['seconds']:g} s each",
        "vCPUs on": "CPUs " + ", ".join(map(str, options["cpus"])),
        "Thief's period": units.duration(options["period_ns"]),
        "Seed": str(options["seed"]),
        "Started": result["started"],
        "Compiler": result["compiler"],
        "Load average": " ".join(f"{value:.2f}" for value in result["host"]["load_average"]),
    }
    facts = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in described.items())
    first, *rest = result["command"].split(" --")
    command = escape(first) + "".join(f" <span>--{escape(option)}</span>" for option in rest)
    return (
        f"<section>\n<h2>How it was run</h2>\n<dl>{facts}</dl>\n"
        f"<p>The same again:</p>\n<pre>{command}</pre>\n</section>\n"
        "<section>\n<h2>How it is counted</h2>\n"
        '<p class="about">CPU time is what the kernel says that the vCPUs have used in the window. The work '
        "itself is what an acquisition costs the subject “no lock”, measured in the same rounds; waiting is "
        "all beyond that. Burnt is CPU time of all vCPUs while the holder or the next in line is stopped, "
        "when under strict order nobody can get the lock.</p>\n</section>"
    )
