"""What queues carry, of multiprocessing and of pylocks.multiprocessing: python -m bench.dropin.

Half of the processes put messages and the other half get them, as fast as they can, through one queue.  Both
kinds take turns, in random order; a round is a slice of each, and yields a ratio.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import pylocks.multiprocessing

__all__ = ["main"]

CONTEXTS: dict[str, Any] = {
    "multiprocessing": multiprocessing.get_context("fork"),
    "pylocks": pylocks.multiprocessing.get_context("fork"),
}
BAR = 1.0
"""Of multiprocessing's throughput, at 2 and 8 processes, short messages."""


@dataclass(frozen=True)
class Load:
    """What is measured."""

    queue: str
    processes: int
    size: int
    """Of a message, bytes."""
    messages: int
    """In a slice, together."""
    bar: float | None = None


LOADS = (
    Load("Queue", 2, 16, 60_000, BAR),
    Load("Queue", 8, 16, 60_000, BAR),
    Load("SimpleQueue", 2, 16, 60_000, BAR),
    Load("SimpleQueue", 8, 16, 60_000, BAR),
    Load("Queue", 2, 100_000, 1_500),
    Load("Queue", 8, 100_000, 1_500),
    Load("SimpleQueue", 2, 100_000, 1_500),
    Load("SimpleQueue", 8, 100_000, 1_500),
)


def _put(queue: Any, start: Any, message: bytes, n: int) -> None:
    start.wait()
    for _ in range(n):
        queue.put(message)


def _get(queue: Any, start: Any, n: int) -> None:
    start.wait()
    for _ in range(n):
        queue.get()


def _rate(kind: str, load: Load) -> float:
    """Messages a second of one slice."""
    context = CONTEXTS[kind]
    queue = getattr(context, load.queue)()
    start = CONTEXTS["multiprocessing"].Barrier(load.processes + 1)
    pairs = load.processes // 2
    share = load.messages // pairs
    message = bytes(load.size)
    children = [
        *(context.Process(target=_get, args=(queue, start, share)) for _ in range(pairs)),
        *(context.Process(target=_put, args=(queue, start, message, share)) for _ in range(pairs)),
    ]
    for child in children:
        child.start()
    start.wait()
    began = time.perf_counter()
    for child in children:
        child.join()
    elapsed = time.perf_counter() - began
    assert queue.empty() and not any(child.exitcode for child in children)
    return share * pairs / elapsed


def _measure(load: Load, rounds: int, chance: random.Random) -> dict[str, list[float]]:
    rates: dict[str, list[float]] = {kind: [] for kind in CONTEXTS}
    for _ in range(rounds):
        for kind in chance.sample(sorted(CONTEXTS), len(CONTEXTS)):
            rates[kind].append(_rate(kind, load))
    return rates


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and return 1 if a bar is missed and --check was given."""
    parser = argparse.ArgumentParser(prog="python -m bench.dropin", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="slices of each; default %(default)s")
    parser.add_argument("--check", action="store_true", help="exit status 1 if a bar is missed")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all rates")
    options = parser.parse_args(arguments)
    chance = random.Random(1)
    missed, samples = False, []
    print(
        f"{'queue':12} {'processes':>9} {'bytes':>8} {'multiprocessing':>16} {'pylocks':>10}  "
        "ratio (quartiles)"
    )
    for load in LOADS:
        rates = _measure(load, options.rounds, chance)
        ratios = [a / b for a, b in zip(rates["pylocks"], rates["multiprocessing"], strict=True)]
        low, _, high = quantiles(ratios, n=4) if len(ratios) > 1 else ratios * 3
        verdict = ""
        if load.bar is not None:
            met = median(ratios) >= load.bar
            missed |= not met
            verdict = f"  bar {load.bar:.1f} {'met' if met else 'MISSED'}"
        print(
            f"{load.queue:12} {load.processes:9} {load.size:8} {median(rates['multiprocessing']):14,.0f}/s "
            f"{median(rates['pylocks']):8,.0f}/s  {median(ratios):.2f} ({low:.2f} to {high:.2f}){verdict}",
            flush=True,
        )
        samples.append(asdict(load) | {"rates": rates})
    if options.json:
        options.json.write_text(json.dumps(samples, indent=1))
    return int(missed and options.check)


if __name__ == "__main__":
    sys.exit(main())
