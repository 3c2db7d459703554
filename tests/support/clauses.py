"""The register of clauses of the contract, and what they are written with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from support.stage import Stage


@dataclass(frozen=True)
class Check:
    """One clause of the contract."""

    run: Callable[[Stage], None]
    native: bool
    """It holds under the native protocol, too, where timed acquires poll without a ticket."""
    one_cpu: bool
    """Worth repeating where there is one CPU."""
    bounded: bool
    """It holds of bounded locks, too; else it is about strict order."""


CHECKS: dict[str, Check] = {}


def clause(
    *, native: bool = True, one_cpu: bool = False, bounded: bool = True
) -> Callable[[Callable[[Stage], None]], None]:
    """Add a function to the contract."""

    def add(function: Callable[[Stage], None]) -> None:
        CHECKS[function.__name__] = Check(function, native, one_cpu, bounded)

    return add


def raises(kind: type[BaseException], function: Callable[..., Any], *arguments: Any) -> BaseException:
    """The exception of that kind that the call raises."""
    try:
        result = function(*arguments)
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} expected, not {result!r}")


class Ring(Exception):
    """What a signal handler raises here."""


def ring() -> None:
    """A handler that raises."""
    raise Ring
