"""What is shown while rows run: bars with rich on a terminal, a line a row elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from . import units
from .results import Row

if TYPE_CHECKING:
    from .row import Plan
    from .subjects import Subject


class Progress:
    """Shows nothing; the base of those that do."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, plan: Plan, subject: Subject) -> None:
        """A row starts."""

    def update(self, elapsed: float, acquisitions: int, kills: int | None = None) -> None:
        """The row has run for so many seconds, made so many acquisitions, and killed so many."""

    def end(self, row: Row) -> None:
        """The row is over."""


class Lines(Progress):
    """One line on standard error for each finished row."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._done = 0

    def end(self, row: Row) -> None:
        self._done += 1
        trouble = f", {row['violations']} violations" if row["violations"] else ""
        killed = f", {row['chaos']['kills']:,} kills" if "chaos" in row else ""
        print(
            f"[{self._done}/{self._rows}] {row['label']} at {units.factor(row['overcommit'])}, "
            f"{row['processes']} processes: {units.count(row['acquisitions_per_s'])}/s{killed}{trouble}",
            file=sys.stderr,
            flush=True,
        )


class Bars(Progress):
    """A bar for the whole run, with the current row's figures, on standard error."""

    def __init__(self, rows: int, seconds: float | None, acquisitions: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress

        self._seconds = seconds
        self._acquisitions = acquisitions
        self._done = 0
        self._bars = RichProgress(
            SpinnerColumn(),
            TextColumn("{task.fields[row]}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[figures]}", justify="right"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            expand=True,
            refresh_per_second=8,  # drawing takes CPU from the workers
        )
        self._task = self._bars.add_task("", total=float(rows), row="", figures="")

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def begin(self, plan: Plan, subject: Subject) -> None:
        text = f"{subject.label} at {units.factor(plan.overcommit)}, {plan.processes} processes"
        self._bars.update(self._task, row=text, figures="starting")

    def update(self, elapsed: float, acquisitions: int, kills: int | None = None) -> None:
        shares = [0.0]
        if self._seconds is not None:
            shares.append(elapsed / self._seconds)
        if self._acquisitions is not None:
            shares.append(acquisitions / self._acquisitions)
        rate = f"{units.count(acquisitions / elapsed)}/s" if elapsed > 0 else ""
        killed = f"{kills:,} kills  " if kills is not None else ""
        self._bars.update(
            self._task,
            completed=self._done + min(1.0, max(shares)),
            figures=f"{units.count(acquisitions)} acquisitions  {killed}{rate}",
        )

    def end(self, row: Row) -> None:
        self._done += 1
        self._bars.update(self._task, completed=self._done)


def choose(rows: int, seconds: float | None, acquisitions: int | None, *, wanted: bool) -> Progress:
    """What suits standard error and the packages that are there."""
    options: dict[str, Any] = {"seconds": seconds, "acquisitions": acquisitions}
    if not wanted:
        return Progress()
    if sys.stderr.isatty():
        try:
            return Bars(rows, **options)
        except ImportError:
            pass
    return Lines(rows)
