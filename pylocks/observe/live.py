"""What top and inspect have in common: once or again and again, as JSON, as text, or full screen."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

from pylocks import errors
from pylocks.observe import tables

__all__ = ["INTERVAL_S", "View", "add_arguments", "clock", "refuse", "run"]

INTERVAL_S = 2.0
"""Seconds between looks unless told otherwise."""
_LEAST_S, _MOST_S = 0.1, 3600.0


class View(Protocol):
    """One way of looking."""

    paused: bool

    def look(self) -> None:
        """Look anew; any DomainError, UnknownLockError."""

    def json(self) -> Any:
        """The last look."""

    def text(self) -> None:
        """Print the last look."""

    def picture(self, width: int, height: int, interval: float) -> list[tables.Line]:
        """The last look, for a screen of that size."""

    def key(self, key: str) -> None:
        """Somebody has pressed it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of all views."""
    parser.add_argument(
        "--once", action="store_true", help="look once, print that, and end; also where no terminal is"
    )
    parser.add_argument(
        "--json", action="store_true", help="as JSON on standard output, a line for each look"
    )
    parser.add_argument(
        "--interval",
        type=_seconds,
        default=INTERVAL_S,
        metavar="SECONDS",
        help="between two looks (default: %(default)g)",
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not _LEAST_S <= value <= _MOST_S:
        known = f"a number of seconds from {_LEAST_S:g} to {_MOST_S:g}"
        raise argparse.ArgumentTypeError(f"{text!r} is not {known}")
    return value


def run(command: str, view: View, given: argparse.Namespace) -> int:
    """Show the view as the arguments say; the exit status."""
    try:
        view.look()
        if given.json:
            return _stream(view, given)
        if given.once or not sys.stdout.isatty():
            view.text()
            return 0
        return _full_screen(command, view, given.interval)
    except (errors.PylocksError, OSError, ValueError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        return refuse(command, error)


def clock(at: float) -> str:
    """The time of day."""
    return time.strftime("%H:%M:%S", time.localtime(at))


def refuse(command: str, error: Exception) -> int:
    """Say why not; the exit status."""
    print(f"pylocks {command}: {tables.words(error)}", file=sys.stderr)
    return 1


def _stream(view: View, given: argparse.Namespace) -> int:
    while True:
        print(json.dumps(view.json()), flush=True)
        if given.once:
            return 0
        time.sleep(given.interval)
        view.look()


def _full_screen(command: str, view: View, interval: float) -> int:
    try:
        from rich.console import Console
    except ImportError:
        print(
            f'pylocks {command}: the full-screen view needs rich: pip install "pylocks[cli]"; '
            "--once and --json do without",
            file=sys.stderr,
        )
        return 1
    from pylocks.observe.screen import Ended, Screen

    console = Console(highlight=False)
    trouble: Exception | None = None
    with Screen(console) as screen:
        due = time.monotonic() + interval
        try:
            while True:
                picture = view.picture(console.width, console.height, interval)
                if trouble is not None:
                    picture = [(tables.words(trouble), "yellow")]
                screen.draw(tables.as_text(picture))
                keys: Sequence[str] = screen.wait(max(0.0, due - time.monotonic()))
                for key in keys:
                    if key in ("q", "Q"):
                        return 0
                    view.key(key)
                if time.monotonic() >= due:
                    due = time.monotonic() + interval
                    if not view.paused:
                        trouble = _again(view)
        except Ended as end:
            return end.status


def _again(view: View) -> Exception | None:
    """Look; what has gone since is told instead of shown, and may come back."""
    try:
        view.look()
    except (errors.PylocksError, OSError) as error:
        return error
    return None
