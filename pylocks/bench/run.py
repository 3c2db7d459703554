"""Runs scenarios: interleaved rounds of all subjects."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any

from pylocks import __version__
from pylocks.stress import host

from . import build, fights, warnings
from .bars import judge
from .csubjects import library
from .lineup import Contender, contenders
from .options import Options
from .process import Process, Target
from .results import SCHEMA, Found
from .scenarios import SCENARIOS, Cell, Scenario, Speed, scenario

__all__ = ["measure", "run", "speed"]


def speed() -> Speed:
    """How fast work is, in C and in Python: the same turns for all subjects."""
    turns = 100_000
    fastest = min(int(library().bench_time_turns(turns)) for _ in range(50))
    return Speed(turns / fastest, fights.loops_per_ns())


def _rows(one: Scenario, options: Options) -> list[tuple[Contender, Target]]:
    """Who takes part, and with which pylocks."""
    rows = []
    for row in contenders(one.lineup):
        if options.subjects and row.name not in options.subjects:
            continue
        rows.append((row, Target()))
        if options.against is not None and row.ours:
            twin = replace(row, name=f"{row.name}@{options.against.name}")
            rows.append((twin, options.against))
    return rows


def cells_of(one: Scenario, options: Options) -> Sequence[Cell]:
    """Its loads, as far as they are wanted."""
    return [cell for cell in one.cells if options.wants(cell.name, cell.quick)]


def measure(one: Scenario, options: Options, work: Speed, tell: Callable[[str], None]) -> Found:
    """Rounds of all subjects for each cell; build.CompilerError, ProcessError."""
    order = random.Random(options.seed)
    found = Found({}, {}, {})
    with ExitStack() as stack:
        there: list[tuple[Contender, Process]] = []
        started = [
            (row, stack.enter_context(Process(one.module or row.module, row.setting, target)))
            for row, target in _rows(one, options)
        ]
        for row, process in started:
            asked = {"subject": row.subject, "policy": row.policy, "locks": row.locks, "served": row.served}
            found.facts[row.name] = process.ask(asked)
            if "unavailable" not in found.facts[row.name]:
                there.append((row, process))
        cells = cells_of(one, options)
        for cell in cells:
            found.loads[cell.name] = asdict(cell)
            found.cells[cell.name] = {row.name: [] for row, _ in there}
        for number in range(options.rounds):
            for cell in cells:
                seed = order.getrandbits(48)
                for row, process in order.sample(there, len(there)):
                    tell(f"round {number + 1} of {options.rounds}, {cell.name}, {row.name}")
                    plan = cell.slice(
                        work, options.seconds, options.warm_ms, collapses=row.collapses, seed=seed
                    )
                    found.cells[cell.name][row.name].append(process.ask(asdict(plan)))
    return found


def _say(tell: Callable[[str], None], name: str, text: str) -> None:
    tell(f"{name}: {text}")


def run(options: Options, tell: Callable[[str], None]) -> dict[str, Any]:
    """All that is asked for, as it is written to --json; build.CompilerError, ProcessError."""
    chosen = [scenario(name) for name in options.scenarios] or list(SCENARIOS)
    library()  # compiles, if need be, before anything is timed
    machine = host.describe()
    before = warnings.before()
    work = speed()
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    found: dict[str, Any] = {}
    for one in chosen:
        say = partial(_say, tell, one.name)
        got = one.measure(options, say) if one.measure is not None else measure(one, options, work, say)
        found[one.name] = asdict(got)
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "pylocks": __version__,
        "host": machine,
        "compiler": build.compiler_version(),
        "options": options.as_json(),
        "started": started,
        "work": asdict(work),
        "scenarios": found,
    }
    result["bars"] = [asdict(verdict) for verdict in judge(result)]
    result["warnings"] = [*before, *warnings.after(result)]
    return result
