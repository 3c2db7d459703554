"""Runs experiments, and puts together what they found."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import partial
from typing import Any

from pylocks import __version__
from pylocks.bench import build, warnings
from pylocks.bench.csubjects import library
from pylocks.bench.options import Options as Engine
from pylocks.bench.run import measure, speed
from pylocks.stress import host

from . import quota
from .results import derive, judged
from .scenarios import WORK, Experiment, Setup

__all__ = ["SCHEMA", "Options", "idle_thieves", "run"]

SCHEMA = 1
FEW_SLICES = 3


@dataclass(frozen=True)
class Options:
    """What a run is told, validated."""

    chosen: tuple[Experiment, ...]
    cpus: tuple[int, ...]
    steal: float | None
    period_ns: int
    rounds: int
    seconds: float
    seed: int
    quick: bool

    def command(self) -> str:
        """The command that makes the same run again."""
        words = ["pylocks lab", *(one.name for one in self.chosen), f"--cpus {len(self.cpus)}"]
        if self.steal is not None:
            words.append(f"--steal {self.steal:g}")
        words += [f"--period {self.period_ns / 1e6:g}ms", f"--rounds {self.rounds}"]
        words += [f"--seconds {self.seconds:g}", f"--seed {self.seed}"]
        return " ".join(words + ["--quick"] * self.quick)


@contextmanager
def _on(cpus: Sequence[int]) -> Iterator[None]:
    """Who is started meanwhile has these CPUs, and chooses its ops for them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def run(options: Options, tell: Callable[[str], None]) -> dict[str, Any]:
    """All that is asked for, as it is written to --json; build.CompilerError, ProcessError."""
    library()  # compiles, if need be, before anything is timed
    machine, said, work = host.describe(), warnings.before(), speed()
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    setup = Setup(options.cpus, tuple(sorted(os.sched_getaffinity(0))), options.steal, options.period_ns)
    engine = Engine(quick=options.quick, rounds=options.rounds, seconds=options.seconds, seed=options.seed)
    found: dict[str, Any] = {}
    for one in options.chosen:
        scenario = one.scenario(setup)
        refused = quota.refusal() if one.aim == "quota" else None
        if not scenario.cells:
            refused = "its vCPUs need two CPUs to contend"
        if refused is not None:
            said.append(f"{one.name} was left out: {refused}")
            continue
        with _on(options.cpus):
            got = measure(scenario, engine, work, partial(_say, tell, one.name))
        derive(got)
        found[one.name] = asdict(got)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "pylocks": __version__,
        "host": machine,
        "compiler": build.compiler_version(),
        "command": options.command(),
        "options": {**asdict(options), "chosen": [one.name for one in options.chosen]},
        "started": started,
        "work": asdict(work),
        "scenarios": found,
    }
    result["shape"] = judged(result)
    result["warnings"] = [*said, *warnings.after(result), *idle_thieves(found)]
    return result


def _say(tell: Callable[[str], None], name: str, text: str) -> None:
    tell(f"{name}: {text}")


def idle_thieves(found: dict[str, Any]) -> Iterator[str]:
    """Where hardly anybody was caught, nothing can be said of what that does."""
    for name, scenario in found.items():
        for cell, subjects in scenario["cells"].items():
            aim = scenario["loads"][cell]["aim"]
            for subject, samples in subjects.items():
                slices = sum(sample["slices"] for sample in samples)
                if subject == WORK or slices >= FEW_SLICES * len(samples):
                    continue
                where = f"{name} {cell}: {subject}"
                if aim in ("holder", "next"):
                    yield (
                        f"{where} was stopped {slices} times only in {len(samples)} rounds: "
                        "give it longer --seconds"
                    )
                elif aim == "quota":
                    yield (
                        f"{where} used up its quota {slices} times only in {len(samples)} rounds: "
                        "others had the CPUs, or it is too large"
                    )
