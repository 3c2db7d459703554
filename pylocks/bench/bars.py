"""The bars: figures that pylocks means to reach, as data, and whether a run reached them.

They hold for a machine of two CPUs and CPython 3.11; on others they say how it compares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .results import Samples, Spread, ratio, typical

__all__ = ["BARS", "Bar", "Verdict", "judge"]


@dataclass(frozen=True)
class Bar:
    """One row."""

    scenario: str
    cell: str
    subject: str
    measure: str
    """A figure of sample.Sample, or "ns" of one operation."""
    at_least: float | None = None
    at_most: float | None = None
    against: tuple[str, ...] = ()
    """The figure is a ratio to that of the best of these, which is the one with the highest rate; empty: it
    is the figure itself."""
    against_cell: str = ""
    """Theirs in another cell; empty: in the same."""


@dataclass(frozen=True)
class Verdict:
    """What became of a bar."""

    bar: Bar
    peer: str | None
    """The best of those it is held against."""
    figure: Spread | None
    """None: not measured."""
    met: bool | None


BARGING = ("adaptive", "ttas", "pthread_mutex", "pthread_robust", "pthread_pi", "sem_t")
EXPLICIT = ("pylocks:native", "pylocks:yield", "pylocks:futex")
SHAPES = ("S", "M", "L")
MS = 1e6
PROMOTION_NS = 200_000
"""PLK_BOUND_NS of pylocks/bounded.h."""


def _uncontended() -> Iterator[Bar]:
    ours = "pylocks.TicketLock"
    yield Bar("uncontended", "with", ours, "ns", at_most=1.05, against=("empty C type",))
    yield Bar("uncontended", "with", ours, "ns", at_most=0.50, against=("threading.Lock",))
    yield Bar("uncontended", "with", ours, "ns", at_most=0.45, against=("multiprocessing.Lock",))
    recursive = "pylocks.TicketRLock"
    yield Bar("uncontended", "with", recursive, "ns", at_most=0.60, against=("threading.RLock",))
    yield Bar("uncontended", "with", recursive, "ns", at_most=0.50, against=("multiprocessing.RLock",))
    yield Bar("uncontended", "C pair", "pylocks", "ns", at_most=0.55, against=("pthread_mutex",))
    yield Bar("uncontended", "C pair", "pylocks", "ns", at_most=0.42, against=("pthread_robust",))
    yield Bar("uncontended", "C pair", "pylocks", "ns", at_most=1.10, against=("unrecorded",))


def _fifo() -> Iterator[Bar]:
    for shape in SHAPES:
        yield Bar("two", f"2:{shape}", "pylocks", "rate", at_least=0.95, against=("ticket_spin",))
    for n, limits in ((8, (1.0, 1.0, 1.0)), (64, (1.7, 1.3, 1.3))):
        for shape, least in zip(SHAPES, limits, strict=True):
            cell = f"{n}:{shape}"
            yield Bar("overcommit", cell, "pylocks", "rate", at_least=least, against=("ticket_yield",))
            if n == 8:  # at no more CPU, as far as that can be measured
                yield Bar("overcommit", cell, "pylocks", "cpu", at_most=1.01, against=("ticket_yield",))
            yield Bar("overcommit", cell, "pylocks", "jain", at_least=0.99)


def _bounded() -> Iterator[Bar]:
    for n in (8, 64):
        for shape in SHAPES:
            row = ("overcommit", f"{n}:{shape}", "pylocks:bounded")
            yield Bar(*row, "rate", at_least=0.95, against=BARGING)
            yield Bar(*row, "jain", at_least=0.97)
            yield Bar(*row, "max", at_most=2 * n * PROMOTION_NS + 10 * MS)


def _python() -> Iterator[Bar]:
    ours, peer = "TicketLock:bounded", ("multiprocessing.Lock",)
    for n in (2, 8, 64):
        yield Bar("python", f"{n}:bare", ours, "rate", at_least=1.0, against=peer)
        yield Bar("python", f"{n}:bare", ours, "max", at_most=0.5, against=peer)
    yield Bar("python", "64:20us", ours, "rate", at_least=1.4, against=peer)
    yield Bar("python", "64:20us", ours, "jain", at_least=0.98)


def _choice() -> Iterator[Bar]:
    """Enlightened against native, and the automatic choice against the best explicit one."""
    native = ("pylocks:native",)
    for shape in SHAPES:
        yield Bar("two", f"2:{shape}", "pylocks:futex", "rate", at_least=0.97, against=native)
        for n in (16, 64):  # 8 and 32 times two CPUs
            yield Bar("overcommit", f"{n}:{shape}", "pylocks:futex", "rate", at_least=50, against=native)
    for scenario, n in (("two", 2), ("overcommit", 8), ("overcommit", 64)):
        for shape in SHAPES:
            yield Bar(scenario, f"{n}:{shape}", "pylocks", "rate", at_least=0.95, against=EXPLICIT)


def _parked() -> Iterator[Bar]:
    counted = "pylocks:counted"
    yield Bar("parked", "1000", counted, "events.kicks", at_most=1.01)
    yield Bar("parked", "1000", counted, "events.spurious", at_most=0.01)
    ours = "pylocks:futex"
    yield Bar("parked", "1000", ours, "rate", at_least=1 / 1.3, against=(ours,), against_cell="8")


def _family() -> Iterator[Bar]:
    peer = ("multiprocessing",)
    for game in ("notify", "event", "semaphore"):
        for n in (2, 8):
            yield Bar("family", f"{n}:{game}", "family", "rate", at_least=1.0, against=peer)
    yield Bar("family", "8:barrier", "family", "rate", at_least=2.0, against=peer)
    for cell in ("8:mixed", "64:mixed"):
        yield Bar("readers", cell, "RWLock", "rate", at_least=1.0, against=("TicketLock",))
    yield Bar("readers", "66:apart", "RWLock", "max", at_most=500 * MS)


BARS: tuple[Bar, ...] = (
    *_uncontended(),
    *_fifo(),
    *_bounded(),
    *_python(),
    *_choice(),
    *_parked(),
    *_family(),
)


def judge(result: Mapping[str, Any], bars: Sequence[Bar] | None = None) -> list[Verdict]:
    """Every bar (None: of BARS) of the loads and subjects that were run, or should have been."""
    return [_judge(bar, result) for bar in (BARS if bars is None else bars) if _concerns(bar, result)]


def _concerns(bar: Bar, result: Mapping[str, Any]) -> bool:
    found = result["scenarios"].get(bar.scenario, {"loads": {}, "facts": {}})
    cells = {bar.cell, bar.against_cell or bar.cell}
    return cells <= found["loads"].keys() and bar.subject in found["facts"]


def _judge(bar: Bar, result: Mapping[str, Any]) -> Verdict:
    cells = result["scenarios"][bar.scenario]["cells"]
    mine = cells.get(bar.cell, {}).get(bar.subject)
    samples: Samples = cells.get(bar.against_cell or bar.cell, {})
    peer, figure = None, None
    if mine and not bar.against:
        figure = typical(mine, bar.measure)
    elif mine:
        peer = _best(bar.against, samples)
        figure = None if peer is None else ratio(mine, samples[peer], bar.measure)
    return Verdict(bar, peer, figure, None if figure is None else _met(bar, figure.median))


def _best(names: Sequence[str], samples: Samples) -> str | None:
    rates = {name: typical(samples[name], "rate") for name in names if samples.get(name)}
    known = {name: rate.median for name, rate in rates.items() if rate is not None}
    return max(known, key=lambda name: known[name]) if known else None


def _met(bar: Bar, figure: float) -> bool:
    return (bar.at_least is None or figure >= bar.at_least) and (bar.at_most is None or figure <= bar.at_most)
