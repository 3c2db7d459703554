"""How pylocks compares with its peers when nobody else wants the lock: python -m pylocks.bench.ratios.

Times drift, on shared machines by half from one second to the next, so two times that were not
taken together say nothing.  Here all subjects take turns in one process, a batch of about 2 ms each;
a round is one batch of every subject, and each round gives one ratio.  What is reported is the
median of the rounds' ratios with their quartiles.  The process settings (bench.settings) take
turns round by round, too, each in a process of its own with peers of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from . import build, report
from .cases import EMPTY, Case, all_cases
from .results import BARS, OURS, Options, Results, SettingResult
from .settings import DEFAULT, SETTINGS
from .worker import Plan, Worker, WorkerError
from pylocks.stress import host

__all__ = ["main", "measure"]

LEAST_ROUNDS = 5


def _cases_of_bars() -> list[Case]:
    """The cases that the bars, and the cost of the harness, need."""
    wanted = {Case(bar.operation, name) for bar in BARS for name in (OURS[bar.operation], bar.peer, EMPTY)}
    return [case for case in all_cases() if case in wanted]


def measure(options: Options) -> Results:
    """Run it, a few seconds; build.CompilerError, WorkerError."""
    machine = host.describe()
    plans = [
        Plan(
            # The other settings are there to be compared with the default.
            cases=[
                (case.operation, case.subject)
                for case in (all_cases() if setting is DEFAULT else _cases_of_bars())
            ],
            batch_ms=options.batch_ms,
            seed=options.seed,
            cpu=options.cpu,
        )
        for setting in SETTINGS
    ]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(Worker(setting, plan)) for setting, plan in zip(SETTINGS, plans, strict=True)
        ]
        rounds = [[worker.round() for worker in workers] for _ in range(options.rounds)]
        return Results(
            options,
            machine,
            build.compiler_version(),
            tuple(
                SettingResult(
                    worker.setting.name,
                    worker.facts,
                    {key: [answers[at][key] for answers in rounds] for key in rounds[0][at]},
                )
                for at, worker in enumerate(workers)
            ),
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pylocks.bench.ratios",
        description="Compare uncontended pylocks with other locks, by ratios of interleaved batches.",
    )
    default = Options()
    add = parser.add_argument
    add(
        "--rounds", type=int, default=default.rounds, help="ratios of which the median is taken (%(default)s)"
    )
    add("--batch-ms", type=float, default=default.batch_ms, help="length of a batch (%(default)s)")
    add("--seed", type=int, default=default.seed, help="of the order within each round (%(default)s)")
    add("--cpu", type=int, help="pin the measuring processes to this CPU, once they have attached")
    add("--json", type=Path, metavar="FILE", help="write everything, with all samples, to FILE")
    add("--check", action="store_true", help="exit with status 1 if a bar is missed")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.rounds < LEAST_ROUNDS:
        parser.error(f"--rounds must be at least {LEAST_ROUNDS}, not {args.rounds}: quartiles need some")
    if not args.batch_ms > 0:
        parser.error(f"--batch-ms must be more than 0, not {args.batch_ms:g}")
    usable = os.sched_getaffinity(0)
    if args.cpu is not None and args.cpu not in usable:
        parser.error(f"--cpu {args.cpu} is not one of the CPUs that can be used: {sorted(usable)}")
    try:
        results = measure(Options(args.rounds, args.batch_ms, args.seed, args.cpu))
    except (build.CompilerError, WorkerError) as error:
        print(f"bench.ratios: {error}", file=sys.stderr)
        return 2
    print(report.text(results))
    if args.json is not None:
        args.json.write_text(json.dumps(results.as_json(), indent=1) + "\n")
    return 1 if args.check and results.missed else 0


if __name__ == "__main__":
    sys.exit(main())
