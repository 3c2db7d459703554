"""The report: one page that needs nothing but itself."""

from __future__ import annotations

from html import escape
from typing import Any

from . import charts, host, units
from .results import Row
from .style import CSS
from .summary import finding_lines, sentences, verdict_line
from .table import remark

FIGURES = {
    "throughput": (
        "Throughput against overcommit",
        "Acquisitions a second by all processes together. Both axes are logarithmic: "
        "equal distances are equal factors.",
    ),
    "waits": (
        "How long a waiter waits, {at}",
        "The share of waits that were longer than a time; both axes are logarithmic. A line ends at the "
        "longest wait. A waiter that had to be killed counts with the time it had waited by then.",
    ),
    "shares": (
        "Who got how much, {at}",
        "Acquisitions of each process as a multiple of an equal share, sorted. "
        "Jain's index is 1 when all got the same, and 1/n when one got everything.",
    ),
}

COLUMNS = (
    ("Lock", "slow path of pylocks, or the peer"),
    ("Acquisitions/s", "of all workers together"),
    ("Jain", "index of fairness among the workers"),
    ("Wait p50", "half of all waits were no longer"),
    ("p99", "99 of 100 waits were no longer"),
    ("p99.9", "999 of 1000 waits were no longer"),
    ("max", "the longest wait"),
    ("Parks", "times that a waiter went to sleep"),
    ("Kicks", "times that an unlocker woke a waiter"),
    ("CPU s", "of all workers"),
    ("Switches", "context switches of all workers"),
    ("", "how the row ended, if in any special way"),
)

CHECKS = (
    ("occupied", "nobody else is inside the critical section"),
    ("torn_write", "a cache line written word by word under the lock holds one writer's stamp only"),
    ("lost_update", "a counter incremented without atomics under the lock equals the acquisitions"),
    ("ticket_order", "each holder's ticket is the one after the last holder's"),
    ("lost_waiter", "whoever waits when the time is over comes out of the queue"),
    ("acquire_error, release_error", "acquire and release raise nothing"),
    ("worker_died, row_failed", "no worker, and no row, ends by itself"),
)


def page(result: dict[str, Any]) -> str:
    """The whole document."""
    lines = charts.series(result)
    body = [_head(result)]
    if lines:
        body.append(f'<div class="figures">{"".join(_figure(result, name) for name in FIGURES)}</div>')
    body += [_table(result), _notes(result), _how(result)]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>pylocks stress: {escape(result['verdict'])}</title>\n"
        f"<style>\n{CSS}{_colours(lines)}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _colours(lines: list[charts.Series]) -> str:
    light = "".join(f"{name}: {value}; " for name, value in charts.properties(lines, dark=False).items())
    dark = "".join(f"{name}: {value}; " for name, value in charts.properties(lines, dark=True).items())
    return f":root {{ {light}}}\n@media (prefers-color-scheme: dark) {{ :root {{ {dark}}} }}\n"


def _head(result: dict[str, Any]) -> str:
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in sentences(result))
    word, _, rest = verdict_line(result).partition(": ")
    return (
        "<header>\n"
        f'<p class="kicker">pylocks {escape(result["pylocks"])} · {escape(result["started"][:10])}</p>\n'
        "<h1>Locks under overcommit</h1>\n"
        f'<p class="verdict {escape(result["verdict"])}"><strong>{escape(word)}</strong> {escape(rest)}</p>\n'
        f'<div class="lead">{said}</div>\n'
        f'<p class="host">{escape(host.line(result["host"]))}.</p>\n</header>'
    )


def _figure(result: dict[str, Any], name: str) -> str:
    title, about = FIGURES[name]
    if name == "throughput" and any(row["protocol"] is None for row in result["rows"]):
        about += " mp.Lock is multiprocessing.Lock."
    title = title.format(at=charts.at(charts.highest(charts.series(result))))
    drawing = charts.svg(result, name).replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)
    caption = f"<figcaption>{escape(about)}</figcaption>"
    return f"<figure>\n<h2>{escape(title)}</h2>\n{drawing}\n{caption}\n</figure>"


def _table(result: dict[str, Any]) -> str:
    heads = "".join(
        f'<th scope="col" title="{escape(about)}">{escape(title)}</th>' for title, about in COLUMNS
    )
    groups: list[tuple[str, list[Row]]] = []
    for row in result["rows"]:
        title = f"{units.factor(round(row['overcommit'], 2))} overcommit, {row['processes']} processes"
        if not groups or groups[-1][0] != title:
            groups.append((title, []))
        groups[-1][1].append(row)
    bodies = "".join(
        f'<tbody><tr><th scope="rowgroup" colspan="{len(COLUMNS)}"><span>{escape(title)}</span></th></tr>'
        + "".join(map(_row, rows))
        + "</tbody>"
        for title, rows in groups
    )
    return (
        '<section>\n<h2>All rows</h2>\n<div class="scroll" tabindex="0">\n'
        f"<table><thead><tr>{heads}</tr></thead>{bodies}</table>\n</div>\n</section>"
    )


def _row(row: Row) -> str:
    waits = row["wait_ns"]
    switches = row["context_switches"]
    cells = [
        units.count(row["acquisitions_per_s"]),
        "–" if row["jain"] is None else f"{row['jain']:.3f}",
        *(units.duration(waits[level]) for level in ("p50", "p99", "p999", "max")),
        units.count(row["parks"]),
        units.count(row["kicks"]),
        f"{row['cpu_seconds']:.2f}",
        units.count(switches["voluntary"] + switches["involuntary"]),
        remark(row),
    ]
    state = "bad" if row["violations"] else "stuck" if row["killed"] else ""
    dot = f'<i style="background: var(--{escape(row["slow_path"])})"></i>'
    name = f'<td class="name">{dot}{escape(row["label"])}</td>'
    return f'<tr class="{state}">{name}{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'


def _notes(result: dict[str, Any]) -> str:
    findings = finding_lines(result, most=20)
    parts = []
    if findings:
        items = "".join(f"<li>{escape(line)}</li>" for line in findings)
        parts.append(f'<section class="bad">\n<h2>Violations</h2>\n<ul>{items}</ul>\n</section>')
    if result["warnings"]:
        items = "".join(f"<li>{escape(line)}</li>" for line in result["warnings"])
        parts.append(f"<section>\n<h2>Notes on the figures</h2>\n<ul>{items}</ul>\n</section>")
    return "\n".join(parts)


def _how(result: dict[str, Any]) -> str:
    options = result["options"]
    length = []
    if options["seconds"] is not None:
        length.append(f"{options['seconds']:g} s a row")
    if options["acquisitions"] is not None:
        length.append(f"{options['acquisitions']:,} acquisitions a row")
    load = result["host"]["load_average"]
    facts = {
        "Work": f"{units.duration(options['cs_ns'])} under the lock, {units.duration(options['outside_ns'])} "
        "between, the latter varied by half",
        "Locks": f"{options['locks']}, policy {options['policy']}",
        "Length": " or ".join(length),
        "Seed": str(result["seed"]),
        "Started": result["started"],
        "Load average": " ".join(f"{value:.2f}" for value in load),
    }
    described = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    checks = "".join(f"<dt><code>{escape(kind)}</code></dt><dd>{escape(what)}</dd>" for kind, what in CHECKS)
    return (
        f"<section>\n<h2>How it was run</h2>\n<dl>{described}</dl>\n<p>The same again:</p>\n"
        f"<pre>{_command(options['command'])}</pre>\n</section>\n"
        f"<section>\n<h2>What was verified at every acquisition</h2>\n<dl>{checks}</dl>\n</section>"
    )


def _command(line: str) -> str:
    """A command line that a narrow page breaks between options, not within."""
    first, *rest = line.split(" --")
    return escape(first) + "".join(f" <span>--{escape(option)}</span>" for option in rest)
