"""The results as text for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .cases import Case, all_cases
from .results import BARS, OURS, Ratio, Results, SettingResult, Spread
from pylocks.stress import host

VERDICTS = {True: "met", False: "MISSED", None: ""}


def text(results: Results) -> str:
    """All tables."""
    return "\n".join([*_heading(results), *_against_peers(results), *_settings(results), *_times(results)])


def _heading(results: Results) -> Iterator[str]:
    options = results.options
    yield f"{host.line(results.host)}, {results.compiler}"
    yield (
        f"Medians of {options.rounds} rounds of interleaved {options.batch_ms:g} ms batches, quartiles in "
        "brackets; nobody else wants the lock."
    )
    busy = results.host["load_average"][0]
    if busy >= len(results.host["affinity"]):
        yield f"The machine was busy (load {busy:.2f}): read the ratios, not the times."


def _against_peers(results: Results) -> Iterator[str]:
    default = results.settings[0]
    yield from _table(
        f"Time of pylocks / time of a peer ({default.name}: the default)",
        ("operation", "pylocks against", "ratio", "", "bar", ""),
        [
            (
                ratio.operation,
                ratio.peer,
                f"{ratio.value.median:.2f}",
                _quartiles(ratio.value, 2),
                "" if ratio.limit is None else f"{ratio.limit:.2f}",
                VERDICTS[ratio.met],
            )
            for ratio in default.ratios()
        ],
    )


def _settings(results: Results) -> Iterator[str]:
    """What protocol and patching make of the bars."""
    rows = []
    for setting in results.settings:
        found = {(ratio.operation, ratio.peer): ratio for ratio in setting.ratios()}
        rows.append(
            (
                setting.name,
                f"{setting.facts.patched} of {setting.facts.sites}",
                *(_with_verdict(found[bar.operation, bar.peer]) for bar in BARS),
            )
        )
    yield from _table(
        "The same, for each process setting",
        ("setting", "sites patched", *(f"{bar.operation} / {bar.peer}" for bar in BARS)),
        rows,
    )
    default = results.settings[0]
    operations = list(dict.fromkeys(bar.operation for bar in BARS))
    yield from _table(
        f"ns for each, and what it has over {default.name}",
        ("setting", *(cell for operation in operations for cell in (operation, "difference", ""))),
        [
            (
                setting.name,
                *(cell for operation in operations for cell in _difference(setting, default, operation)),
            )
            for setting in results.settings
        ],
    )


def _difference(setting: SettingResult, default: SettingResult, operation: str) -> tuple[str, str, str]:
    ours = Case(operation, OURS[operation])
    time = f"{setting.ns(ours).median:.1f}"
    if setting is default:
        return time, "", ""
    pairs = zip(setting.samples_ns[ours.key], default.samples_ns[ours.key], strict=True)
    over = Spread.of([mine - theirs for mine, theirs in pairs])
    return time, f"{over.median:+.1f}", _quartiles(over, 1)


def _times(results: Results) -> Iterator[str]:
    default = results.settings[0]
    rows = []
    for case in all_cases():
        time = default.ns(case)
        rows.append((case.operation, case.subject, f"{time.median:.1f}", _quartiles(time, 1)))
    yield from _table(
        f"ns for each, the loop around it included ({default.name})", ("operation", "subject", "ns", ""), rows
    )


def _with_verdict(ratio: Ratio) -> str:
    return f"{ratio.value.median:.2f} {VERDICTS[ratio.met]}".rstrip()


def _quartiles(value: Spread, digits: int) -> str:
    return f"[{value.q1:.{digits}f} .. {value.q3:.{digits}f}]"


def _table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Aligned columns: numbers to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    numeric = [all(not row[at] or row[at][0] in "0123456789+-" for row in rows) for at in range(len(header))]
    yield ""
    yield title
    for row in (header, *rows):
        cells = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        yield f"  {'  '.join(cells).rstrip()}"
