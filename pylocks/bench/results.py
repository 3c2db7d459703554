"""What a comparison finds, and the bars that it is held against."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .cases import C_PAIR, EMPTY, Case, all_cases
from .worker import Facts

__all__ = ["BARS", "OURS", "Bar", "Options", "Ratio", "Results", "SettingResult", "Spread"]

OURS = {"with": "pylocks.TicketLock", "pair": "pylocks.TicketLock", C_PAIR: "pylocks"}
"""operation -> the subject that is compared with the others"""


@dataclass(frozen=True)
class Bar:
    """A ratio that pylocks must not exceed."""

    operation: str
    peer: str
    limit: float


BARS: tuple[Bar, ...] = (
    Bar("with", "threading.Lock", 0.60),
    Bar("with", "multiprocessing.Lock", 0.45),
    Bar(C_PAIR, "pthread_mutex", 0.65),
    Bar(C_PAIR, "unrecorded", 1.10),
)


@dataclass(frozen=True)
class Options:
    """How to measure."""

    rounds: int = 51
    batch_ms: float = 2.0
    seed: int = 1
    cpu: int | None = None


@dataclass(frozen=True)
class Spread:
    """A median and its quartiles."""

    median: float
    q1: float
    q3: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """Of at least two samples."""
        q1, median, q3 = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, q1, q3)


@dataclass(frozen=True)
class Ratio:
    """Time of pylocks over time of a peer, in one setting."""

    operation: str
    subject: str
    peer: str
    value: Spread
    limit: float | None
    """The bar; None: there is none."""

    @property
    def met(self) -> bool | None:
        """Whether the median is within the bar; None if there is no bar."""
        return None if self.limit is None else self.value.median <= self.limit


@dataclass(frozen=True)
class SettingResult:
    """All that was measured in one process."""

    name: str
    facts: Facts
    samples_ns: dict[str, list[float]]
    """Case -> ns per operation, one for each round."""

    def ns(self, case: Case) -> Spread:
        """Time of an operation."""
        return Spread.of(self.samples_ns[case.key])

    def ratios(self) -> Iterator[Ratio]:
        """pylocks against every peer that was measured, in the order of the cases."""
        limits = {(bar.operation, bar.peer): bar.limit for bar in BARS}
        for case in all_cases():
            ours = Case(case.operation, OURS[case.operation])
            if case == ours or case.subject == EMPTY or case.key not in self.samples_ns:
                continue
            pairs = zip(self.samples_ns[ours.key], self.samples_ns[case.key], strict=True)
            yield Ratio(
                case.operation,
                ours.subject,
                case.subject,
                Spread.of([mine / theirs for mine, theirs in pairs]),
                limits.get((case.operation, case.subject)),
            )


@dataclass(frozen=True)
class Results:
    """A whole measurement."""

    options: Options
    host: dict[str, Any]
    compiler: str
    settings: tuple[SettingResult, ...]

    @property
    def missed(self) -> list[Ratio]:
        """The bars that the default setting does not meet."""
        return [ratio for ratio in self.settings[0].ratios() if ratio.met is False]

    def as_json(self) -> dict[str, Any]:
        """Everything, samples included."""
        return {
            "options": asdict(self.options),
            "host": self.host,
            "compiler": self.compiler,
            "bars_met": not self.missed,
            "settings": [
                {
                    "name": setting.name,
                    "facts": asdict(setting.facts),
                    "ratios": [{**asdict(ratio), "met": ratio.met} for ratio in setting.ratios()],
                    "samples_ns": setting.samples_ns,
                }
                for setting in self.settings
            ],
        }
